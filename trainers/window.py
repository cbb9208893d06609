"""What a worker is asked to do at a closing, and what it answers. The same in process and under Ray.

An order is plain data: texts, labels by name, tensors, numbers. `carry_out` predicts the arrivals with
the parent posterior, THEN chooses beta, forgets, and learns the members.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

from torch import Tensor

from posterior import panel
from posterior.families import make_family
from posterior.family import ONE_TASK, Facts, Family, Tensors, tensors_of
from posterior.forgetting import BETA_GRID
from posterior.panel import Panel
from posterior.tensors import require_finite
from trainers.activations import Activations
from trainers.evaluate import by_ranks, draws_of
from trainers.keeping import DRAWS, Keeping, kept
from trainers.language import NextTokens
from trainers.lesson import Lesson, lesson_of
from trainers.model import AdaptedModel
from trainers.noise import key
from trainers.panelled import Panelled
from trainers.question import Question, WhichClass
from trainers.update import InProcess, Ranks, Schedule, update


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
    panel: bool = False  # whether generative heads and pools have their say, where classes are asked for
    token_correlation: float = 0.3  # independent tokens in a predicted one, where tokens are learned


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One closing's work. `labels_before` is the parent's label map, `labels` the map afterwards.

    A map names the class of each row; a class that was merged has several (`posterior.folding`). An
    empty `parent` stands for the base prior, from which every chain starts.
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
    """The answer. `forecasts[i]` follows `columns`, or `labels_before` where none are named.

    Numbers of one name add up. No class known: no forecasts. A model that is asked for tokens says what a
    text cost and how many tokens it predicted instead.
    """

    tensors: Tensors
    forecasts: tuple[tuple[float, ...], ...]
    beta: float
    beta_nll: Mapping[str, float]
    kl: float
    nll: float
    steps: int
    seconds: Mapping[str, float]
    dropped: float = 0.0
    columns: tuple[str, ...] = ()
    lesson: Lesson | None = None  # what the window taught; None where nothing was learned


class Updater(Protocol):
    """Whoever carries out orders: this process, or workers under Ray."""

    def carry_out(self, order: Order) -> Outcome:
        """Predict and learn; raises NotFinite if the belief stopped being a number."""
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


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


def question_of(
    model: AdaptedModel,
    activations: Activations,
    learn: LearnSpec,
    beside: Panel | None,
    labels: Sequence[str],
) -> Question:
    """Return what this model is asked; `beside` is the parent's panel, if it has one, of these labels."""
    if model.spec.objective == "tokens":
        return NextTokens(model, activations, learn.token_correlation)
    rows = WhichClass(model, activations)
    return Panelled.of(rows, beside, labels) if learn.panel else rows


def carry_out(model: AdaptedModel, activations: Activations, order: Order, ranks: Ranks) -> Outcome:
    """Predict the arrivals with the parent, then turn its posterior into the next."""
    begun = time.perf_counter()
    family = make_family(order.family.name, order.family.options)
    if not order.parent:
        order = replace(order, parent=root(model, order.family, chain_seed=order.chain_seed))
    beside, own = panel.restore(order.parent)
    parent = family.restore(own)
    question = question_of(model, activations, order.learn, beside, order.labels_before)
    forecasts = _forecasts(question, family, parent, order, ranks)
    predicted = time.perf_counter()
    columns = question.columns(order.labels_before)
    unchanged = _unchanged(order, columns, forecasts, predicted - begun)
    if not order.members:
        return unchanged
    likelihood, evidence = question.evidence(order.members, order.labels)
    if not evidence:
        return unchanged
    base = family.base(
        model.slots(len(order.labels)), seed=order.chain_seed, centres=model.centres(order.labels)
    )
    grown = family.grow(parent, base)
    state, beta, beta_nll = _kept(question, family, grown, base, order)
    tasks = tuple(sorted(set(order.tasks_of_members)))
    prior = family.open(state, tasks)
    prepared = time.perf_counter()
    posterior, fit = update(
        family,
        prior,
        likelihood,
        examples=len(order.members),
        schedule=order.learn.schedule,
        seed=order.seed,
        window=order.window,
        ranks=ranks,
        tasks=order.tasks_of_members,
        evidence=evidence,
    )
    facts = Facts(question.outcomes(order.members, order.labels_before), order.window, tasks)
    settled = family.settle(state, prior, posterior, facts)
    tensors = tensors_of(settled) | _panel_after(question, family, parent, order)
    require_finite(tensors, where=f"posterior of window {order.window}")
    lesson = lesson_of(
        question,
        family,
        prior,
        posterior,
        order.members,
        order.tasks_of_members,
        labels=order.labels,
        slots=[slot.name for slot in model.slots(len(order.labels))],
        evidence=evidence,
        ranks=ranks,
    )
    require_finite({"costs": lesson.costs}, where=f"what window {order.window} taught")
    return replace(
        unchanged,
        tensors=tensors,
        beta=beta,
        beta_nll=beta_nll,
        kl=fit.kl,
        nll=fit.nll,
        steps=fit.steps,
        dropped=fit.dropped,
        lesson=lesson,
        seconds={
            "predict": predicted - begun,
            "prepare": prepared - predicted,
            "learn": time.perf_counter() - prepared,
        },
    )


def _panel_after(
    question: Question, family: Family[Any, Any], parent: Any, order: Order
) -> dict[str, Tensor]:
    """Return the tensors of the panel that the window hands on; none where there is no panel."""
    if not isinstance(question, Panelled):
        return {}
    tasks, seed = order.tasks_of_members, key(order.seed, "panel")
    draws = draws_of(family, parent, tasks=tasks, count=min(order.learn.draws, DRAWS), seed=seed)
    return tensors_of(
        question.after(order.members, tasks, draws, before=order.labels_before, labels=order.labels)
    )


def root(model: AdaptedModel, family: FamilySpec, *, chain_seed: int) -> dict[str, Tensor]:
    """Return the tensors a chain starts from: the base prior before any class is known."""
    made = make_family(family.name, family.options)
    return tensors_of(made.base(model.slots(0), seed=chain_seed, centres=model.centres(())))


def _unchanged(
    order: Order, columns: tuple[str, ...], forecasts: tuple[tuple[float, ...], ...], seconds: float
) -> Outcome:
    return Outcome(
        tensors=order.parent,
        forecasts=forecasts,
        beta=1.0,
        beta_nll={},
        kl=0.0,
        nll=0.0,
        steps=0,
        seconds={"predict": seconds},
        columns=columns,
    )


def _forecasts(
    question: Question, family: Family[Any, Any], parent: Any, order: Order, ranks: Ranks
) -> tuple[tuple[float, ...], ...]:
    """Return what is said of every arrival."""
    columns = question.columns(order.labels_before)
    if not columns or not order.arrivals:
        return ()
    texts, tasks = order.arrivals, order.tasks_of_arrivals
    seed = key(order.chain_seed, order.window)
    draws = draws_of(family, parent, tasks=tasks, count=order.learn.draws, seed=seed)

    def say(at: slice) -> Tensor:
        return question.foretell(texts[at], tasks[at], draws)

    said = by_ranks(ranks, len(texts), len(columns), say)
    require_finite({"predictive": said}, where=f"forecast before window {order.window}")
    return tuple(tuple(row) for row in said.tolist())


def _kept(
    question: Question, family: Family[Any, Any], grown: Any, base: Any, order: Order
) -> tuple[Any, float, dict[str, float]]:
    keeping = Keeping(
        beta=order.learn.beta,
        grid=order.learn.beta_grid,
        sample=order.learn.beta_sample,
        draws=order.learn.draws,
        seed=key(order.seed, "beta"),
    )
    return kept(
        family,
        grown,
        base,
        keeping,
        question,
        order.members,
        order.tasks_of_members,
        before=order.labels_before,
        labels=order.labels,
    )
