"""One window: `update(prior, examples, seed) -> (posterior, fit)`. No I/O, no clock, no global randomness.

Minimises E_q[mean nll] + (T/N_t) KL(q || prior) by Adam in the family's whitened coordinates, with one
weight draw per sequence. The work is split over ranks by position in the batch; every rank's gradient SUM
is gathered and added in rank order, so the result is a function of the world size, not of timing, and
the KL is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

import torch
from torch import Tensor

from posterior.elbo import Scale
from posterior.family import Draw, Family, NotFinite, Tensors
from trainers.noise import key, normals, shuffled

S = TypeVar("S")

# (positions in the plan, draw) -> summed negative log-likelihood in nats
Likelihood = Callable[[Sequence[int], Draw], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How hard to look for the optimum; `lr` is in prior deviations per step."""

    epochs: int = 3
    batch: int = 16
    lr: float = 0.05
    warmup: float = 0.1
    temperature: float = 1.0
    draws: int = 1


@dataclass(frozen=True, slots=True)
class Fit:
    """What the update did: last epoch's mean nll under draws, KL(q || p_t) in nats, optimiser steps."""

    nll: float
    kl: float
    steps: int


class Ranks(Protocol):
    """Who computes which shard of a batch."""

    @property
    def world(self) -> int:
        """Number of shards."""
        ...

    def mine(self) -> Sequence[int]:
        """Return the shards this process computes."""
        ...

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return all shards' tensors in rank order, given those of `mine`."""
        ...


@final
@dataclass(frozen=True, slots=True)
class InProcess:
    """All ranks computed here, one after the other: the same sums in the same order as real workers."""

    world: int = 1

    def mine(self) -> Sequence[int]:
        """Return every rank."""
        return range(self.world)

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the parts: they are all here."""
        return parts


def update(
    family: Family[S],
    prior: S,
    likelihood: Likelihood,
    *,
    examples: int,
    schedule: Schedule,
    seed: int,
    window: int,
    ranks: Ranks,
) -> tuple[S, Fit]:
    """Return the posterior after `examples` new examples, starting at the prior.

    No example: the prior itself, bit for bit. Raises NotFinite naming the coordinate and the window.
    """
    if examples == 0:
        return prior, Fit(nll=0.0, kl=0.0, steps=0)
    scale = Scale(examples, schedule.temperature)
    at = _Adam.start({k: v.clone() for k, v in family.origin(prior).items()})
    steps = schedule.epochs * math.ceil(examples / schedule.batch)
    nll = 0.0
    for epoch in range(schedule.epochs):
        order = shuffled(examples, key(seed, "order", epoch))
        nll = 0.0
        for start in range(0, examples, schedule.batch):
            batch = order[start : start + schedule.batch]
            keys = {i: [key(seed, epoch, i, d) for d in range(schedule.draws)] for i in batch}
            value, gradient = _gradient(family, prior, at.coordinates, likelihood, batch, keys, scale, ranks)
            _require_finite(gradient, window=window, step=at.step)
            nll += value / examples
            at = at.move(gradient, lr=schedule.lr * _pace(at.step, steps, schedule.warmup))
    posterior = family.place(prior, at.coordinates)
    return posterior, Fit(nll=nll, kl=float(family.kl(posterior, prior)), steps=at.step)


def _gradient(
    family: Family[Any],
    prior: Any,
    coordinates: Tensors,
    likelihood: Likelihood,
    batch: Sequence[int],
    keys: Mapping[int, Sequence[int]],
    scale: Scale,
    ranks: Ranks,
) -> tuple[float, dict[str, Tensor]]:
    """Return the batch's summed nll and the gradient of the objective."""
    parts = []
    for rank in ranks.mine():
        shard = batch[rank :: ranks.world]
        leaves = {k: v.detach().requires_grad_() for k, v in coordinates.items()}
        parts.append(_flat_nll_gradient(family, prior, leaves, likelihood, shard, keys))
    total = torch.stack(tuple(ranks.gather(parts)))
    summed = total[0]
    for other in total[1:]:  # in rank order: float addition does not commute with grouping
        summed = summed + other
    leaves = {k: v.detach().requires_grad_() for k, v in coordinates.items()}
    charge = scale.divergence(family.kl(family.place(prior, leaves), prior))
    prior_pull = _grad(charge, leaves)
    likelihood_pull = _unflatten(scale.likelihood(summed[1:], len(batch)), coordinates)
    return float(summed[0]), {k: likelihood_pull[k] + prior_pull[k] for k in coordinates}


def _flat_nll_gradient(
    family: Family[Any],
    prior: Any,
    leaves: dict[str, Tensor],
    likelihood: Likelihood,
    shard: Sequence[int],
    keys: Mapping[int, Sequence[int]],
) -> Tensor:
    """Return [nll, gradient...] of a shard, averaged over its draws; zeros for an empty shard."""
    if not shard:
        return torch.zeros(1 + sum(v.numel() for v in leaves.values()))
    state = family.place(prior, leaves)
    draws = len(keys[shard[0]])
    total = torch.zeros(())
    for d in range(draws):
        noise = normals(family.noise(state), [keys[i][d] for i in shard])
        total = total + likelihood(shard, family.sample(state, noise)) / draws
    gradient = _grad(total, leaves)
    return torch.cat([total.detach().reshape(1), *(gradient[k].reshape(-1) for k in leaves)])


def _grad(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not value.requires_grad:
        return {k: torch.zeros_like(v) for k, v in leaves.items()}
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)
    }


def _unflatten(flat: Tensor, like: Tensors) -> dict[str, Tensor]:
    parts = flat.split_with_sizes([v.numel() for v in like.values()])
    return {k: p.reshape(v.shape).to(v.dtype) for (k, v), p in zip(like.items(), parts, strict=True)}


def _pace(step: int, steps: int, warmup: float) -> float:
    """Return the share of the full step: up linearly over the warm-up, then a cosine down to 0.

    The decay to 0 matters: noise of the draws stays in the last iterate otherwise.
    """
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def _require_finite(gradient: Tensors, *, window: int, step: int) -> None:
    for name, value in gradient.items():
        if not bool(torch.isfinite(value).all()):
            msg = f"window {window}, step {step}: the gradient of {name!r} is not finite"
            raise NotFinite(msg)


@dataclass(frozen=True)
class _Adam:
    """Adam as a value; its moments die with the window, for they are no part of the belief."""

    coordinates: Tensors
    first: Tensors
    second: Tensors
    step: int

    @staticmethod
    def start(coordinates: Tensors) -> _Adam:
        zeros = {k: torch.zeros_like(v) for k, v in coordinates.items()}
        return _Adam(coordinates, zeros, dict(zeros), 0)

    def move(self, gradient: Tensors, *, lr: float) -> _Adam:
        step = self.step + 1
        first = {k: 0.9 * m + 0.1 * gradient[k] for k, m in self.first.items()}
        second = {k: 0.99 * v + 0.01 * gradient[k].square() for k, v in self.second.items()}
        fix1, fix2 = 1 - 0.9**step, 1 - 0.99**step
        moved = {
            k: c - lr * (first[k] / fix1) / ((second[k] / fix2).sqrt() + 1e-12)
            for k, c in self.coordinates.items()
        }
        return _Adam(moved, first, second, step)
