"""Gaussians whose precision is diagonal plus low rank: Lambda = D + G'G, D = diag(sd^-2), G (k, P).

All slots are one vector of P weights, so that what moves together is charged together. Everything is
done in D-whitened coordinates, y = D^1/2 (x - m) with H = G D^-1/2, where the precision is I + H'H and
costs O(k P), never O(P^2):

    sample   y = e - H' A H e,  A = f(H H'),  f(s) = (1 - (1+s)^-1/2) / s   = (I + H'H)^-1/2 e
    solve    (I + H'H)^-1 v = v - H' C^-1 H v,  C = I + H H'       Woodbury
    log det  log|D| + log|C|                                       determinant lemma
    marginal D_a + G_a' (I + H_b H_b')^-1 G_a                      of slots a, without b; low rank again
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posterior.family import Tensors


@dataclass(frozen=True)
class LowRank:
    """Means, log deviations of the diagonal part (sd = D^-1/2), and rows of G by slot: (k, *shape)."""

    mean: Tensors
    log_sd: Tensors
    factor: Tensors


def flat(tensors: Tensors, names: Sequence[str], *, lead: int = 0) -> Tensor:
    """Concatenate slots to one float64 vector, keeping `lead` leading axes."""
    return torch.cat([tensors[k].double().flatten(lead) for k in names], dim=-1)


def unflat(vector: Tensor, like: Tensors, names: Sequence[str]) -> dict[str, Tensor]:
    """Cut a vector (..., P) into slots of `like`'s shapes and dtypes."""
    parts = vector.split_with_sizes([like[k].numel() for k in names], dim=-1)
    return {
        k: part.reshape(*part.shape[:-1], *like[k].shape).to(like[k].dtype)
        for k, part in zip(names, parts, strict=True)
    }


@dataclass(frozen=True)
class Joint:
    """A `LowRank` made ready to work with.

    `whitened` H (k, P) and `core`, the Cholesky factor of C (k, k), are float64; `low` H and `gain` A H
    are what a draw multiplies by, in the dtype of the weights. `apart` is the divergence of this spread
    from that of the belief with the given core, known once for all the steps that move only the mean.
    """

    state: LowRank
    whitened: Tensor
    core: Tensor
    low: Tensor
    gain: Tensor
    apart: tuple[Tensor, Tensor] | None = None

    @property
    def names(self) -> list[str]:
        """The slots in the order in which they make one vector."""
        return sorted(self.state.mean)


def joint(state: LowRank) -> Joint:
    """Whiten the factor and factorise its core, once per belief."""
    names = sorted(state.mean)
    whitened = flat(state.factor, names, lead=1) * flat(state.log_sd, names).exp()
    gram = whitened @ whitened.T
    core = torch.linalg.cholesky(torch.eye(len(gram), dtype=torch.float64) + gram)
    values, vectors = torch.linalg.eigh(gram)
    root = (1 + values.clamp_min(0.0)).sqrt()
    gain = (vectors / (root * (1 + root))) @ (vectors.T @ whitened)
    dtype = state.mean[names[0]].dtype
    return Joint(state, whitened, core, whitened.to(dtype), gain.to(dtype))


def solve(belief: Joint, vector: Tensor) -> Tensor:
    """Return (I + H'H)^-1 v for whitened vectors (..., P)."""
    h = belief.whitened
    inner = torch.cholesky_solve((vector @ h.T).mT if vector.ndim > 1 else (h @ vector)[:, None], belief.core)
    return vector - (inner.mT @ h if vector.ndim > 1 else inner[:, 0] @ h)


def sample(belief: Joint, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return m + D^-1/2 (I + H'H)^-1/2 e, one row per row of noise, differentiable in the mean.

    The symmetric root needs no noise beyond one normal per weight, so a grown head leaves the draws of
    everything else as they were.
    """
    state, names = belief.state, belief.names
    e = torch.cat([noise[k].flatten(1) for k in names], dim=1)
    deviations = unflat(e - (e @ belief.low.T) @ belief.gain, state.mean, names)
    return {k: state.mean[k] + torch.exp(state.log_sd[k]) * deviations[k] for k in names}


def quadratic(state: LowRank, prior: Joint) -> Tensor:
    """Return 0.5 (m - m_p)' Lambda_p (m - m_p) in nats, differentiable in the mean."""
    names = prior.names
    apart = flat(state.mean, names) - flat(prior.state.mean, names)
    z = apart * torch.exp(-flat(prior.state.log_sd, names))
    return 0.5 * (z.square().sum() + (prior.whitened @ z).square().sum())


def spread_kl(belief: Joint, prior: Joint) -> Tensor:
    """Return 0.5 [tr(Lambda_p Lambda_q^-1) - P + log|Lambda_q| - log|Lambda_p|], exactly 0 at equality."""
    if belief.apart is not None and belief.apart[0] is prior.core:
        return belief.apart[1]
    if _same_spread(belief.state, prior.state):
        return torch.zeros((), dtype=torch.float64)
    names = belief.names
    ratio = torch.exp(2 * (flat(belief.state.log_sd, names) - flat(prior.state.log_sd, names)))
    # In q's whitened coordinates the prior's precision is diag(ratio) + F'F and q's I + H'H.
    factor = flat(prior.state.factor, names, lead=1) * flat(belief.state.log_sd, names).exp()
    half = torch.linalg.solve_triangular(belief.core, belief.whitened, upper=False)
    variances = 1 - half.square().sum(dim=0)
    trace = (ratio * variances).sum() + factor.square().sum() - (factor @ half.T).square().sum()
    gap = _log_det(belief.core) - _log_det(prior.core) + ratio.log().sum().neg()
    nats: Tensor = 0.5 * (trace - ratio.numel() + gap)
    return nats


def marginal(belief: Joint, slots: Collection[str]) -> Joint:
    """Return the belief about these slots alone, in float64.

    What the others' weights were correlated with becomes doubt: M M' = C - H_a H_a' takes G_a to M^-1 G_a.
    """
    state, names = belief.state, [k for k in belief.names if k in slots]
    sd = flat(state.log_sd, names).exp()
    own = flat(state.factor, names, lead=1) * sd
    others = torch.linalg.cholesky(belief.core @ belief.core.T - own @ own.T)
    factor = torch.linalg.solve_triangular(others, own, upper=False) / sd
    mean = {k: state.mean[k].double() for k in names}
    return joint(LowRank(mean, {k: state.log_sd[k] for k in names}, unflat(factor, mean, names)))


def _log_det(core: Tensor) -> Tensor:
    return 2 * torch.diagonal(core).log().sum()


def _same_spread(a: LowRank, b: LowRank) -> bool:
    return all(torch.equal(a.log_sd[k], b.log_sd[k]) and _equal(a.factor[k], b.factor[k]) for k in a.log_sd)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def compress(state: LowRank, rows: Tensors, *, rank: int) -> tuple[LowRank, float]:
    """Return the state with G'G + R'R cut to `rank` directions, and half the log-determinant cut away.

    Cut in D-whitened coordinates, where a singular value says how much a direction is known beyond the
    diagonal. What is cut is dropped: adding its diagonal instead would claim evidence about single
    weights that was only ever about their combinations. The nats are an upper bound of the claim given
    up: 0.5 sum log(1 + s_i^2) over the dropped directions.
    """
    names = sorted(state.mean)
    sd = flat(state.log_sd, names).exp()
    stacked = torch.cat([flat(state.factor, names, lead=1), flat(rows, names, lead=1)]) * sd
    values, vectors = torch.linalg.eigh(stacked @ stacked.T)
    kept = vectors[:, -rank:].T.flip(0) @ stacked
    dropped = 0.5 * torch.log1p(values[:-rank].clamp_min(0.0)).sum() if values.numel() > rank else 0.0
    return LowRank(state.mean, state.log_sd, unflat(kept / sd, state.mean, names)), float(dropped)


def power_prior(state: LowRank, base: LowRank, *, beta: float) -> LowRank:
    """Return q^beta p_0^(1-beta) for a diagonal base: precision beta (D + G'G) + (1 - beta) D_0.

    The mean solves (that precision) m = beta Lambda m_q + (1 - beta) D_0 m_0, by Woodbury.
    """
    names = sorted(state.mean)
    kept, lent = (torch.exp(-2 * flat(s.log_sd, names)) for s in (state, base))
    precision = beta * kept + (1 - beta) * lent
    apart = flat(base.mean, names) - flat(state.mean, names)
    pull = (1 - beta) * lent * apart
    log_sd = unflat(-0.5 * precision.log(), state.log_sd, names)
    factor = {k: beta**0.5 * g for k, g in state.factor.items()}
    belief = joint(LowRank(state.mean, log_sd, factor))
    sd = precision.rsqrt()
    moved = flat(state.mean, names) + sd * solve(belief, sd * pull)
    return LowRank(unflat(moved, state.mean, names), log_sd, factor)
