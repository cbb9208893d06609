"""Gaussians over matrices whose precision is that of the base plus one Kronecker product.

    Lambda = sd^-2 (I + L (x) R)        L (m, m) of the rows, R (n, n) of the columns, trace R = 1

Evidence sum_g vec(g) vec(g)' enters by its two partial traces, sum_g g g' into L and sum_g g'g into R. They
add up over windows, so a window's evidence is that of its parts in any order. The product is the evidence
itself where a slot has one row, or where rows and columns of g are independent; otherwise it is the product
of the same partial traces: what rows and columns know together beyond that is lost. Nothing here is (mn, mn):
with L = Q diag(l) Q' and R = P diag(r) P' the precision is diagonal, 1 + l_i r_j, in turned coordinates
Q' (X - M) P / sd.

Related: Martens and Grosse, ICML 2015, arXiv:1503.05671 (KFAC); Ritter, Botev and Barber, NeurIPS 2018,
arXiv:1805.07810 (carried on as the next prior).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterior.family import Tensors


@dataclass(frozen=True)
class Kronecker:
    """By slot: means, log deviation of the base (one number), L and R."""

    mean: Tensors
    log_sd: Tensors
    left: Tensors
    right: Tensors


@dataclass(frozen=True)
class Turned:
    """A `Kronecker` made ready to work with: eigenvectors of L and R, and precisions 1 + l r, by slot.

    They are float64. `apart` is the divergence of a slot's spread from that of the belief whose L is
    `beside`, known once for all the steps that move only the mean.
    """

    mean: Tensors
    log_sd: Tensors
    left: Tensors
    right: Tensors
    rows: Tensors
    columns: Tensors
    known: Tensors
    apart: Tensors
    beside: Tensors

    @property
    def state(self) -> Kronecker:
        """The belief as it is handed on."""
        return Kronecker(self.mean, self.log_sd, self.left, self.right)


def turned(state: Kronecker) -> Turned:
    """Find the coordinates in which each slot's weights are independent."""
    rows, columns, known = {}, {}, {}
    for k in state.mean:
        of_rows, rows[k] = torch.linalg.eigh(state.left[k].double())
        of_columns, columns[k] = torch.linalg.eigh(state.right[k].double())
        known[k] = 1 + of_rows.clamp_min(0.0)[:, None] * of_columns.clamp_min(0.0)
    parts = (state.mean, state.log_sd, state.left, state.right)
    return Turned(*parts, rows=rows, columns=columns, known=known, apart={}, beside={})


def deviate(belief: Turned, slot: str, standard: Tensor) -> Tensor:
    """Return sd (I + L (x) R)^-1/2 e for e (..., m, n).

    The symmetric root needs no basis, so a row that was added leaves the draws of the others as they were.
    """
    q, p = (v[slot].to(standard.dtype) for v in (belief.rows, belief.columns))
    inside = (q.mT @ standard @ p) * belief.known[slot].rsqrt().to(standard.dtype)
    return torch.exp(belief.log_sd[slot]) * (q @ inside @ p.mT)


def moved(belief: Turned, slot: str, coordinates: Tensor) -> Tensor:
    """Return the mean moved by so many deviations along each turned coordinate."""
    q, p = (v[slot].to(coordinates.dtype) for v in (belief.rows, belief.columns))
    inside = coordinates * belief.known[slot].rsqrt().to(coordinates.dtype)
    return belief.mean[slot] + torch.exp(belief.log_sd[slot]) * (q @ inside @ p.mT)


def quadratic(mean: Tensor, prior: Turned, slot: str) -> Tensor:
    """Return 0.5 (m - m_p)' Lambda_p (m - m_p) in nats, differentiable in the mean."""
    apart = (mean.double() - prior.mean[slot].double()) * torch.exp(-prior.log_sd[slot].double())
    turned_by = prior.rows[slot].mT @ apart @ prior.columns[slot]
    return 0.5 * (prior.known[slot] * turned_by.square()).sum()


def spread_kl(belief: Turned, prior: Turned, slot: str) -> Tensor:
    """Return 0.5 [tr(Lambda_p Lambda_q^-1) - P + log|Lambda_q| - log|Lambda_p|], exactly 0 at equality.

    In q's turned coordinates its covariance is diagonal, so of L_p (x) R_p only diagonals are asked for.
    Both have the base's deviation.
    """
    if belief.beside.get(slot) is prior.left[slot]:
        return belief.apart[slot]
    sides = ((belief.left, prior.left), (belief.right, prior.right))
    if all(torch.equal(ours[slot], theirs[slot]) for ours, theirs in sides):
        return torch.zeros((), dtype=torch.float64)
    of_rows, of_columns = (
        torch.einsum("ia,ij,ja->a", basis[slot], side[slot].double(), basis[slot])
        for basis, side in ((belief.rows, prior.left), (belief.columns, prior.right))
    )
    ratio = (1 + of_rows[:, None] * of_columns) / belief.known[slot]
    logs = belief.known[slot].log().sum() - prior.known[slot].log().sum()
    return 0.5 * ((ratio - 1).sum() + logs)


def counted(prior: Turned, mean: Tensors, rows: Mapping[str, Tensor]) -> Turned:
    """Return the belief at this mean with the evidence of rows g, (N, m, n) by slot, added to the prior's."""
    left, right = {}, {}
    for k, like in prior.left.items():
        g = rows[k].double() * torch.exp(prior.log_sd[k].double())
        before = like.double()
        more = torch.einsum("nij,nkj->ik", g, g)
        columns = before.trace() * prior.right[k].double() + torch.einsum("nji,njk->ik", g, g)
        whole = (before + more).trace()
        left[k] = (before + more).to(like.dtype)
        right[k] = (columns / whole).to(like.dtype) if whole > 0 else prior.right[k]
    made = turned(Kronecker(mean, prior.log_sd, left, right))
    return replace(made, apart={k: spread_kl(made, prior, k) for k in left}, beside=dict(prior.left))


def power_prior(state: Kronecker, base: Kronecker, *, beta: float) -> Kronecker:
    """Return q^beta p_0^(1-beta): precision I + beta L (x) R, for both have the base's deviation.

    The mean solves (I + beta L (x) R) (m - m_0) = beta (I + L (x) R) (m_q - m_0), turned.
    """
    ready, mean = turned(state), {}
    for k, q in ready.rows.items():
        p, known = ready.columns[k], ready.known[k]
        apart = q.mT @ (state.mean[k].double() - base.mean[k].double()) @ p
        kept = beta * known / (1 + beta * (known - 1))
        mean[k] = (base.mean[k].double() + q @ (kept * apart) @ p.mT).to(state.mean[k].dtype)
    return replace(state, mean=mean, left={k: beta * v for k, v in state.left.items()})
