"""IVON in sequence: a diagonal Gaussian by variational online Newton, each window's posterior the next prior.

With prior N(m_0, 1/P), P elementwise, and N_t new texts, not inflated, d = P/N_t and every step has

    theta = m + eps / sqrt(N_t (h + d))          one draw a text; g_n the gradient of its nll there
    g_hat = mean_n g_n                           h_hat = mean_n g_n (theta_n - m) N_t (h + d)
    g <- b1 g + (1 - b1) g_hat
    h <- b2 h + (1 - b2) h_hat + 0.5 (1 - b2)^2 (h - h_hat)^2 / (h + d)
    m <- m - lr clip[(g / (1 - b1^s) + d (m - m_0)) / (h + d)]

from m = m_0, h = 0, which is the prior itself. The code holds L = N_t (h + d), the precision, which the line
of h keeps positive. Chosen here: the clip, an option of the authors' code, is at one deviation of the
window's prior, so that a step size means what it means for others; b2 = 1 - 3/steps, an average over a
window's last third, where theirs (.99999) would not move in the hundred steps that there are. So short an
average is noisy, and what keeps L positive lifts h by about 0.5 (1 - b2) N_t/batch E[g^2], in three epochs
half of the empirical Fisher information. B is random (uniform up to 1/sqrt(rank)) and stays; A and class rows
are Gaussian around 0.

A slow prior (our reading of CoVON): the next prior is the moving average, at `rate`, of past posteriors in
natural parameters, L and L m. Since each posterior is its prior and a window's evidence, a rate below 1 means
that so much of every window's evidence goes into the prior; what is foretold is by the posterior itself.

Source: Shen et al., ICML 2024, arXiv:2402.17641.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import torch
from torch import Tensor

from benchmarks.study.chain import Frozen, Labels, bytes_of, mapped
from benchmarks.study.streams import Example
from posterior.family import ONE_TASK, Draw, Slot, Tensors
from posterior.gaussian import Scales, directions, grow_rows
from stream.plan import Forecast, window_seed
from trainers.evaluate import Sampler, log_predictive
from trainers.likelihood import Classification
from trainers.noise import key, normals, shuffled
from trainers.update import Likelihood, Schedule

SCALES: Final = Scales(down=0.02, up=0.02, prefix=0.1, head=0.1)  # the deviations that `blob` has
BETA_1: Final = 0.9
REMEMBERED: Final = 3.0  # 1/(1 - b2) is a window's steps over this


@dataclass(frozen=True)
class Gaussian:
    """Means and precisions of independent weights, by slot."""

    mean: Tensors
    precision: Tensors


def base(slots: Sequence[Slot]) -> Gaussian:
    """Return the first prior: A and class rows around 0; B is none of it."""
    random = [s for s in slots if s.role != "up"]
    return Gaussian(
        {s.name: torch.zeros(s.shape) for s in random},
        {s.name: torch.full(s.shape, SCALES.of(s) ** -2) for s in random},
    )


def still(slots: Sequence[Slot], *, seed: int) -> dict[str, Tensor]:
    """Return B of each site: random directions."""
    return {s.name: directions(s, seed=seed) for s in slots if s.role == "up"}


def grown(belief: Gaussian, larger: Gaussian) -> Gaussian:
    """Return the belief with the class rows that it lacks as the base has them."""
    return Gaussian(
        {k: grow_rows(v, larger.mean[k]) for k, v in belief.mean.items()},
        {k: grow_rows(v, larger.precision[k]) for k, v in belief.precision.items()},
    )


def next_prior(prior: Gaussian, posterior: Gaussian, *, rate: float) -> Gaussian:
    """Return the average of both in natural parameters, the posterior at `rate`; at 1 it is the posterior."""
    if rate == 1.0:
        return posterior
    pairs = {k: _averaged(prior, posterior, k, rate) for k in posterior.mean}
    return Gaussian({k: m for k, (m, _) in pairs.items()}, {k: p for k, (_, p) in pairs.items()})


def _averaged(prior: Gaussian, posterior: Gaussian, slot: str, rate: float) -> tuple[Tensor, Tensor]:
    kept, new = (1 - rate) * prior.precision[slot], rate * posterior.precision[slot]
    precision = kept + new
    return (kept * prior.mean[slot] + new * posterior.mean[slot]) / precision, precision


@dataclass(frozen=True)
class _Step:
    """Where the optimiser is: the belief, the momentum of N_t g, and how many steps it took."""

    at: Gaussian
    momentum: Tensors
    count: int


def learned(
    prior: Gaussian,
    likelihood: Likelihood,
    *,
    examples: int,
    schedule: Schedule,
    seed: int,
    beside: Tensors,
    beta_2: float | None = None,
) -> Gaussian:
    """Return the posterior after so many new examples, starting at the prior; `beside` are fixed weights."""
    steps = schedule.epochs * math.ceil(examples / schedule.batch)
    forgets = min(1.0, REMEMBERED / max(1, steps)) if beta_2 is None else 1 - beta_2
    now = _Step(prior, {k: torch.zeros_like(v) for k, v in prior.mean.items()}, 0)
    for epoch in range(schedule.epochs):
        order = shuffled(examples, key(seed, "order", epoch))
        for start in range(0, examples, schedule.batch):
            batch = order[start : start + schedule.batch]
            noise = normals(_shapes(prior), [key(seed, epoch, i) for i in batch])
            found = _estimates(now.at, noise, likelihood, batch, beside, float(examples))
            lr = schedule.lr * _pace(now.count, steps, schedule.warmup)
            now = _moved(now, prior, *found, forgets=forgets, lr=lr)
    return now.at


def _shapes(belief: Gaussian) -> Mapping[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in sorted(belief.mean.items())}


def _drawn(belief: Gaussian, noise: Tensors) -> dict[str, Tensor]:
    return {k: m + belief.precision[k].rsqrt() * noise[k] for k, m in belief.mean.items()}


def samplers(belief: Gaussian, beside: Tensors, *, count: int, seed: int) -> list[Sampler]:
    """Return so many draws that all texts share, the fixed weights beside them; 0 means the mean alone."""
    noises = [normals(_shapes(belief), [key(seed, "draw", k)]) for k in range(count)]
    draws = [_drawn(belief, noise) for noise in noises] or [{k: m[None] for k, m in belief.mean.items()}]
    fixed = {k: v[None] for k, v in beside.items()}
    return [partial(_for_all, draw | fixed) for draw in draws]


def _for_all(draw: Draw, tasks: Sequence[str]) -> Draw:
    del tasks
    return draw


def _estimates(
    belief: Gaussian,
    noise: Tensors,
    likelihood: Likelihood,
    batch: Sequence[int],
    beside: Tensors,
    evidence: float,
) -> tuple[Tensors, Tensors]:
    """Return estimates of the gradient and of the diagonal Hessian of all N_t texts' nll."""
    leaves = {k: v.requires_grad_() for k, v in _drawn(belief, noise).items()}
    nll = likelihood.nll(batch, leaves | {k: v.unsqueeze(0) for k, v in beside.items()})
    found = dict(zip(leaves, torch.autograd.grad(nll, list(leaves.values())), strict=True))
    whole = {k: evidence * g for k, g in found.items()}
    bent = {k: (g * noise[k]).mean(dim=0) * belief.precision[k].sqrt() for k, g in whole.items()}
    return {k: g.mean(dim=0) for k, g in whole.items()}, bent


def _moved(
    now: _Step, prior: Gaussian, gradient: Tensors, hessian: Tensors, *, forgets: float, lr: float
) -> _Step:
    """Take one step: precision first, then the mean by it."""
    count, mean, precision, momentum = now.count + 1, {}, {}, {}
    for k, m in now.at.mean.items():
        before, believed = now.at.precision[k], prior.precision[k]
        surplus = forgets * (before - believed - hessian[k])
        precision[k] = before - surplus + 0.5 * surplus.square() / before
        momentum[k] = BETA_1 * now.momentum[k] + (1 - BETA_1) * gradient[k]
        pull = momentum[k] / (1 - BETA_1**count) + believed * (m - prior.mean[k])
        most = believed.rsqrt()
        mean[k] = m - lr * torch.clamp(pull / precision[k], -most, most)
    return _Step(Gaussian(mean, precision), momentum, count)


def _pace(step: int, steps: int, warmup: float) -> float:
    """Return the share of the full step, as for every other method: up over the warm-up, then a cosine."""
    ramp = max(1, round(warmup * steps))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


@final
class Ivon:
    """A diagonal Gaussian learned so, window by window; `rate` is that of the prior, 1 for yesterday's."""

    def __init__(
        self, frozen: Frozen, schedule: Schedule, *, draws: int, seed: int, rate: float = 1.0
    ) -> None:
        """Start from the base prior, without a class."""
        self._frozen, self._schedule, self._draws = frozen, schedule, draws
        self._seed, self._rate, self._windows = seed, rate, 0
        self._labels: Labels = ()
        self._beside = still(frozen.model.slots(0), seed=seed)
        self._prior = self._posterior = base(frozen.model.slots(0))

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask with the draws of the predictive."""
        return self._said(texts, self._draws)

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the mean."""
        return self._said(texts, 0)

    def learn(self, window: Sequence[Example]) -> None:
        """Learn the window from the prior, and make the next prior."""
        self._labels = mapped(self._labels, window)
        larger = base(self._frozen.model.slots(len(self._labels)))
        prior = grown(self._prior, larger)
        self._posterior = learned(
            prior,
            self._likelihood(window),
            examples=len(window),
            schedule=self._schedule,
            seed=window_seed(self._seed, self._windows),
            beside=self._beside,
        )
        self._prior = next_prior(prior, self._posterior, rate=self._rate)
        self._windows += 1

    def carried(self) -> int:
        """Count the posterior, and the prior where it is another one; B comes from a seed."""
        held = [self._posterior] if self._rate == 1.0 else [self._posterior, self._prior]
        return sum(bytes_of(one.mean) + bytes_of(one.precision) for one in held)

    def _likelihood(self, window: Sequence[Example]) -> Likelihood:
        texts = self._frozen.activations.of([e.text for e in window])
        targets = [self._labels.index(e.label) for e in window]
        return Classification(self._frozen.model, texts, targets, len(self._labels), self._labels)

    def _said(self, texts: Sequence[str], draws: int) -> Sequence[Forecast | None]:
        if not self._labels or not texts:
            return [None] * len(texts)
        seed = key(self._seed, self._windows)
        weights = samplers(self._posterior, self._beside, count=draws, seed=seed)
        activations = self._frozen.activations.of(texts)
        log_p = log_predictive(self._frozen.model, activations, [ONE_TASK] * len(texts), weights)
        return [dict(zip(self._labels, row, strict=True)) for row in log_p.exp().tolist()]
