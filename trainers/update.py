"""One window: `update(prior, examples, seed) -> (posterior, fit)`. No I/O, no clock, no global randomness.

Minimises E_q[mean nll] + (T/N_t) KL(q || prior) by Adam in the family's whitened coordinates, with one
weight draw per sequence. The work is split over ranks by position in the batch; every rank's gradient SUM
is gathered and added in rank order, so the result is a function of the world size, not of timing, and
the KL is counted once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

import torch
from torch import Tensor

from posterior.elbo import KlSchedule, Scale, kl_pace
from posterior.family import ONE_TASK, Draw, Family, NotFinite, Tensors
from trainers.noise import key, normals, shuffled

S = TypeVar("S")
W = TypeVar("W")


class Likelihood(Protocol):
    """How well weights explain examples, by position in the plan."""

    @property
    def outputs(self) -> int:
        """Number K of outputs per example; what `bend` takes signs for."""
        ...

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed negative log-likelihood in nats."""
        ...

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_n f_n . R_n z_n, with R_n R_n' the Hessian of the nll in the outputs f_n, held fixed.

        z (n, K) are signs of +-1. The gradient in the weights of sequence n is g_n = J_n' R_n z_n, and
        E[g_n g_n'] = J_n' R_n R_n' J_n: one row of the generalised Gauss-Newton matrix.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How hard to look for the optimum; `lr` is in prior deviations per step.

    `kl_schedule` spreads the KL over the steps of an epoch. `curvature_sample` bounds the examples behind
    an interim estimate of curvature; the last takes all.
    """

    epochs: int = 3
    batch: int = 16
    lr: float = 0.05
    warmup: float = 0.1
    temperature: float = 1.0
    draws: int = 1
    kl_schedule: KlSchedule = "constant"
    curvature_sample: int = 128


@dataclass(frozen=True, slots=True)
class Fit:
    """What the update did: last epoch's mean nll under draws, KL(q || p_t) in nats, optimiser steps.

    `dropped` is the evidence, in nats, that did not fit the family's rank.
    """

    nll: float
    kl: float
    steps: int
    dropped: float = 0.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything about a window that does not change while it is learned.

    `tasks[i]` is the task of example i. `evidence` is N_t, in units of one independent example; for
    classification the number of examples.
    """

    family: Family[Any, Any]
    prior: Any
    likelihood: Likelihood
    tasks: Sequence[str]
    schedule: Schedule
    evidence: float
    seed: int
    ranks: Ranks

    def noise(self, state: Any, keys: Sequence[int]) -> dict[str, Tensor]:
        """Return the standard normals of one draw per key."""
        return normals(self.family.noise(state), keys)

    def tasks_of(self, positions: Sequence[int]) -> list[str]:
        """Return the tasks of examples."""
        return [self.tasks[i] for i in positions]


def update(
    family: Family[S, W],
    prior: W,
    likelihood: Likelihood,
    *,
    examples: int,
    schedule: Schedule,
    seed: int,
    window: int,
    ranks: Ranks,
    tasks: Sequence[str] | None = None,
    evidence: float | None = None,
) -> tuple[W, Fit]:
    """Return the posterior after `examples` new examples, starting at the prior.

    No example: the prior itself, bit for bit. Raises NotFinite naming the coordinate and the window.
    """
    if examples == 0:
        return prior, Fit(nll=0.0, kl=0.0, steps=0)
    job = Job(
        family=family,
        prior=prior,
        likelihood=likelihood,
        tasks=[ONE_TASK] * examples if tasks is None else tasks,
        schedule=schedule,
        evidence=float(examples) if evidence is None else evidence,
        seed=seed,
        ranks=ranks,
    )
    at = _Adam.start({k: v.clone() for k, v in family.origin(prior).items()})
    steps = schedule.epochs * math.ceil(examples / schedule.batch)
    nll, shape = 0.0, prior
    for epoch in range(schedule.epochs):
        if family.curved:
            sample = spread_over(examples, schedule.curvature_sample)
            shape, _ = _absorbed(job, family.place(prior, at.coordinates, shape=shape), sample, epoch)
        order = shuffled(examples, key(seed, "order", epoch))
        nll = 0.0
        for start in range(0, examples, schedule.batch):
            batch = order[start : start + schedule.batch]
            pace = kl_pace(schedule.kl_schedule, start // schedule.batch, steps // schedule.epochs)
            value, gradient = _gradient(job, shape, at.coordinates, batch, epoch, pace=pace)
            _require_finite(gradient, window=window, step=at.step)
            nll += value / examples
            at = at.move(gradient, lr=schedule.lr * _pace(at.step, steps, schedule.warmup))
    posterior, dropped = family.place(prior, at.coordinates, shape=shape), 0.0
    if family.curved:
        posterior, dropped = _absorbed(job, posterior, range(examples), schedule.epochs)
    return posterior, Fit(nll=nll, kl=float(family.kl(posterior, prior)), steps=at.step, dropped=dropped)


def spread_over(count: int, most: int) -> list[int]:
    """Return at most `most` positions, evenly over range(count)."""
    return [i * count // most for i in range(most)] if count > most else list(range(count))


def _absorbed(job: Job, state: Any, positions: Sequence[int], epoch: int) -> tuple[Any, float]:
    """Return the belief at `state`'s mean with the window's curvature in it, from draws of `state`.

    A sample of n stands for all N examples by weight N/n.
    """
    batch, parts = job.schedule.batch, []
    for rank in job.ranks.mine():
        chunks = [
            _rows(job, state, positions[start : start + batch], epoch)
            for start in range(rank * batch, len(positions), job.ranks.world * batch)
        ]
        held = torch.cat(chunks) if chunks else torch.zeros(0, _width(job))
        most = math.ceil(len(positions) / (batch * job.ranks.world)) * batch
        parts.append(torch.cat([held, torch.zeros(most - len(held), held.shape[1])]))  # equal, to be gathered
    rows = torch.cat(tuple(job.ranks.gather(parts)))
    rows = rows * (job.evidence / len(positions) / job.schedule.temperature) ** 0.5
    like = {k: v[0] for k, v in sorted(job.family.mean(state, job.tasks[:1]).items())}
    absorbed: tuple[Any, float] = job.family.absorb(job.prior, state, _unflatten_rows(rows, like))
    return absorbed


def _width(job: Job) -> int:
    return sum(v[0].numel() for v in job.family.mean(job.prior, job.tasks[:1]).values())


@torch.no_grad()
def _rows(job: Job, state: Any, positions: Sequence[int], epoch: int) -> Tensor:
    """Return g_n of each example, (n, P): its gradient in the weights that were drawn for it alone."""
    keys = [key(job.seed, "curvature", epoch, i) for i in positions]
    signs = normals({"signs": (job.likelihood.outputs,)}, [key(k, "signs") for k in keys])["signs"].sign()
    draw = job.family.sample(state, job.noise(state, keys), job.tasks_of(positions))
    leaves = {k: v.expand(len(positions), *v.shape[1:]).clone().requires_grad_() for k, v in draw.items()}
    with torch.enable_grad():
        gradient = _grad(job.likelihood.bend(positions, leaves, signs), leaves)
    return torch.cat([gradient[k].flatten(1) for k in sorted(leaves)], dim=1)


def _unflatten_rows(rows: Tensor, like: Tensors) -> dict[str, Tensor]:
    parts = rows.split_with_sizes([v.numel() for v in like.values()], dim=1)
    return {k: p.reshape(-1, *v.shape) for (k, v), p in zip(like.items(), parts, strict=True)}


def _gradient(
    job: Job, shape: Any, coordinates: Tensors, batch: Sequence[int], epoch: int, *, pace: float
) -> tuple[float, dict[str, Tensor]]:
    """Return the batch's summed nll and the gradient of the objective, its KL charged at this pace."""
    parts = []
    for rank in job.ranks.mine():
        leaves = {k: v.detach().requires_grad_() for k, v in coordinates.items()}
        parts.append(_flat_nll_gradient(job, shape, leaves, batch[rank :: job.ranks.world], epoch))
    total = torch.stack(tuple(job.ranks.gather(parts)))
    summed = total[0]
    for other in total[1:]:  # in rank order: float addition does not commute with grouping
        summed = summed + other
    scale = Scale(job.evidence, job.schedule.temperature)
    leaves = {k: v.detach().requires_grad_() for k, v in coordinates.items()}
    kl = job.family.kl(job.family.place(job.prior, leaves, shape=shape), job.prior)
    prior_pull = _grad(scale.divergence(kl, pace=pace), leaves)
    likelihood_pull = _unflatten(scale.likelihood(summed[1:], len(batch)), coordinates)
    return float(summed[0]), {k: likelihood_pull[k] + prior_pull[k] for k in coordinates}


def _flat_nll_gradient(
    job: Job, shape: Any, leaves: dict[str, Tensor], shard: Sequence[int], epoch: int
) -> Tensor:
    """Return [nll, gradient...] of a shard, averaged over its draws; zeros for an empty shard."""
    if not shard:
        return torch.zeros(1 + sum(v.numel() for v in leaves.values()))
    state = job.family.place(job.prior, leaves, shape=shape)
    total, draws = torch.zeros(()), job.schedule.draws
    for d in range(draws):
        noise = job.noise(state, [key(job.seed, epoch, i, d) for i in shard])
        total = (
            total + job.likelihood.nll(shard, job.family.sample(state, noise, job.tasks_of(shard))) / draws
        )
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
