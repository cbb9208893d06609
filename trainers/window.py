"""What a worker is asked to do at a closing, and what it answers. The same in process and under Ray.

An order is plain data: texts, labels by name, tensors, numbers. `carry_out` predicts the arrivals with
the parent posterior, THEN chooses beta, forgets, and learns the members.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, final

import torch
from torch import Tensor

from posterior.families import make_family
from posterior.family import ONE_TASK, Facts, Family, Tensors, tensors_of
from posterior.forgetting import BETA_GRID
from posterior.tensors import require_finite
from trainers.evaluate import BATCH, draws_of, log_predictive
from trainers.likelihood import Classification
from trainers.model import AdaptedModel
from trainers.noise import key
from trainers.update import InProcess, Ranks, Schedule, update

BETA_DRAWS: Final = 4  # weight draws behind the choice of beta


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """A family by name with its options, as settings record it."""

    name: str = "blob"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnSpec:
    """How a window is learned and how arrivals are predicted."""

    schedule: Schedule = field(default_factory=Schedule)
    draws: int = 10
    beta: float | None = None  # None: chosen from the grid on the incoming window
    beta_grid: tuple[float, ...] = BETA_GRID
    beta_sample: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One closing's work. `labels_before` is the parent's label map, `labels` the map afterwards.

    An empty `parent` stands for the base prior, from which every chain starts.
    """

    window: int
    family: FamilySpec
    learn: LearnSpec
    chain_seed: int
    seed: int
    parent: Tensors
    labels_before: tuple[str, ...]
    labels: tuple[str, ...]
    arrivals: tuple[str, ...]
    members: tuple[tuple[str, str], ...]  # (text, label)
    arrival_tasks: tuple[str, ...] = ()  # empty: all are of the one task
    member_tasks: tuple[str, ...] = ()

    @property
    def tasks_of_arrivals(self) -> tuple[str, ...]:
        """The task of each arrival."""
        return self.arrival_tasks or (ONE_TASK,) * len(self.arrivals)

    @property
    def tasks_of_members(self) -> tuple[str, ...]:
        """The task of each member."""
        return self.member_tasks or (ONE_TASK,) * len(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The answer. `forecasts[i]` follows `labels_before`; empty while no class is known."""

    tensors: Tensors
    forecasts: tuple[tuple[float, ...], ...]
    beta: float
    beta_nll: Mapping[str, float]
    kl: float
    nll: float
    steps: int
    seconds: Mapping[str, float]
    dropped: float = 0.0


class Updater(Protocol):
    """Whoever carries out orders: this process, or workers under Ray."""

    def carry_out(self, order: Order) -> Outcome:
        """Predict and learn; raises NotFinite if the belief stopped being a number."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


@final
class Activations:
    """Frozen-prefix activations by text, bounded in bytes, oldest out first.

    Safe to share between windows, families and processes, for an activation depends on its text alone.
    """

    def __init__(self, model: AdaptedModel, *, limit_bytes: int = 512 << 20) -> None:
        """Start empty."""
        self._model, self._limit = model, limit_bytes
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the activations of texts, computing those not held."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Tensor:
        if text in self._held:
            self._held.move_to_end(text)
            return self._held[text]
        made = self._held[text] = self._model.activate(text)
        self._bytes += made.numel() * made.element_size()
        while self._bytes > self._limit and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            self._bytes -= gone.numel() * gone.element_size()
        return made


@final
class Local:
    """Carries orders out in this process, as `world` ranks one after the other."""

    def __init__(self, model: AdaptedModel, *, world: int = 1, ranks: Ranks | None = None) -> None:
        """Use this model; `ranks` overrides the in-process ones (under Ray)."""
        self._model = model
        self._activations = Activations(model)
        self._ranks = ranks or InProcess(world)

    def carry_out(self, order: Order) -> Outcome:
        """Predict, then learn."""
        return carry_out(self._model, self._activations, order, self._ranks)

    def close(self) -> None:
        """Nothing to let go."""


def carry_out(model: AdaptedModel, activations: Activations, order: Order, ranks: Ranks) -> Outcome:
    """Predict the arrivals with the parent, then turn its posterior into the next."""
    begun = time.perf_counter()
    family = make_family(order.family.name, order.family.options)
    if not order.parent:
        order = replace(order, parent=root(model, order.family, chain_seed=order.chain_seed))
    parent = family.restore(order.parent)
    forecasts = _forecasts(model, activations, family, parent, order, ranks)
    predicted = time.perf_counter()
    if not order.members:
        return _unchanged(order, forecasts, predicted - begun)
    base = family.base(model.slots(len(order.labels)), seed=order.chain_seed, centres=model.centres)
    grown = family.grow(parent, base)
    texts = activations.of([text for text, _ in order.members])
    targets = [order.labels.index(label) for _, label in order.members]
    state, beta, beta_nll = _forgotten(model, family, grown, base, order, texts, targets)
    tasks = tuple(sorted(set(order.tasks_of_members)))
    prior = family.open(state, tasks)
    prepared = time.perf_counter()
    posterior, fit = update(
        family,
        prior,
        Classification(model, texts, targets, len(order.labels)),
        examples=len(targets),
        schedule=order.learn.schedule,
        seed=order.seed,
        window=order.window,
        ranks=ranks,
        tasks=order.tasks_of_members,
    )
    settled = family.settle(state, prior, posterior, Facts(len(order.labels), order.window, tasks))
    tensors = tensors_of(settled)
    require_finite(tensors, where=f"posterior of window {order.window}")
    return Outcome(
        tensors=tensors,
        forecasts=forecasts,
        beta=beta,
        beta_nll=beta_nll,
        kl=fit.kl,
        nll=fit.nll,
        steps=fit.steps,
        dropped=fit.dropped,
        seconds={
            "predict": predicted - begun,
            "prepare": prepared - predicted,
            "learn": time.perf_counter() - prepared,
        },
    )


def root(model: AdaptedModel, family: FamilySpec, *, chain_seed: int) -> dict[str, Tensor]:
    """Return the tensors a chain starts from: the base prior before any class is known."""
    made = make_family(family.name, family.options)
    return tensors_of(made.base(model.slots(0), seed=chain_seed, centres=model.centres))


def _unchanged(order: Order, forecasts: tuple[tuple[float, ...], ...], seconds: float) -> Outcome:
    return Outcome(
        tensors=order.parent,
        forecasts=forecasts,
        beta=1.0,
        beta_nll={},
        kl=0.0,
        nll=0.0,
        steps=0,
        seconds={"predict": seconds},
    )


def _forecasts(
    model: AdaptedModel,
    activations: Activations,
    family: Family[Any, Any],
    parent: Any,
    order: Order,
    ranks: Ranks,
) -> tuple[tuple[float, ...], ...]:
    """Return p(class) of every arrival; whole batches are dealt to ranks, so bits do not depend on them."""
    if not order.labels_before or not order.arrivals:
        return ()
    texts, tasks, parts = order.arrivals, order.tasks_of_arrivals, []
    seed = key(order.chain_seed, order.window)
    draws = draws_of(family, parent, tasks=tasks, count=order.learn.draws, seed=seed)
    for rank in ranks.mine():
        part = torch.zeros(len(texts), len(order.labels_before), dtype=torch.float64)
        for start in range(rank * BATCH, len(texts), ranks.world * BATCH):
            held, whose = activations.of(texts[start : start + BATCH]), tasks[start : start + BATCH]
            part[start : start + BATCH] = log_predictive(model, held, whose, draws).exp()
        parts.append(part)
    probs = torch.stack(tuple(ranks.gather(parts))).sum(dim=0)  # one term a row is not zero
    require_finite({"predictive": probs}, where=f"forecast before window {order.window}")
    return tuple(tuple(row) for row in probs.tolist())


def _forgotten(
    model: AdaptedModel,
    family: Family[Any, Any],
    grown: Any,
    base: Any,
    order: Order,
    texts: Sequence[Tensor],
    targets: Sequence[int],
) -> tuple[Any, float, dict[str, float]]:
    """Return the prior, beta and each candidate's nll on a sample of the window, before it is learned.

    Scored with the predictive mixture, on members whose class the parent knew, each class counting the
    same: the mean weights alone would take an honest doubt for a claim, and a class that has become
    frequent is no reason to forget the others. A beta below the largest must win by more than two
    standard errors of the difference, so that forgetting always has evidence behind it.
    """
    if order.learn.beta is not None:
        beta = order.learn.beta
        return family.forget(grown, base, beta=beta), beta, {}
    known = [i for i, t in enumerate(targets) if t < len(order.labels_before)]
    sample = known[:: max(1, len(known) // order.learn.beta_sample)][: order.learn.beta_sample]
    if not sample:
        return family.forget(grown, base, beta=1.0), 1.0, {}
    priors = {b: family.forget(grown, base, beta=b) for b in order.learn.beta_grid}
    chosen, truth = [texts[i] for i in sample], torch.tensor([targets[i] for i in sample])
    whose = [order.tasks_of_members[i] for i in sample]
    count, seed = min(order.learn.draws, BETA_DRAWS), key(order.seed, "beta")
    costs = {}
    for beta, prior in priors.items():
        # The same noise for every candidate.
        draws = draws_of(family, prior, tasks=whose, count=count, seed=seed)
        costs[beta] = -log_predictive(model, chosen, whose, draws)[torch.arange(len(sample)), truth]
    scores, best = kept_share(costs, truth)
    return priors[best], best, {str(b): s for b, s in scores.items()}


def kept_share(costs: Mapping[float, Tensor], classes: Tensor) -> tuple[dict[float, float], float]:
    """Return each beta's mean over classes of the mean cost, and the beta to take.

    `costs[beta]` (n,) in nats, `classes` (n,). The largest beta stands unless the cheapest beats it by
    more than two standard errors of their paired difference.
    """
    weight = 1.0 / torch.bincount(classes)[classes].double()
    weight = weight / weight.sum()
    scores = {b: float((weight * c).sum()) for b, c in costs.items()}
    largest, best = max(costs), min(costs, key=lambda b: (scores[b], -b))
    gain = costs[largest] - costs[best]
    won = (weight * gain).sum()
    error = (weight * (gain - won)).norm()
    return scores, best if float(won) > 2 * float(error) else largest
