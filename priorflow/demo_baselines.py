"""Methods on the same windows, among them plain sequential LoRA; and what each of them remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posterior.family import Tensors
from priorflow.scores import Prediction, best_guess, spread
from stream.plan import Forecast, Member, labels_after, window_seed
from stream.relabelling import told_by_name
from trainers.parts import Rules
from trainers.planning import tasks_of
from trainers.window import FamilySpec, Order, Updater

Windows = Mapping[int, Sequence[Member]]  # by Snapshot.index
Told = Callable[[], None]
Rehearsed = Callable[[int], Sequence[Member]]
LORA = "sequential LoRA"
SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a method foretold of each member, the accuracy matrix of its means, and what it cost.

    `kl` holds each window's KL in nats, `seconds` each window's time to predict, prepare and learn.
    """

    predictions: tuple[Prediction, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    kl: tuple[float, ...] = ()
    seconds: tuple[Mapping[str, float], ...] = ()


def _nothing(window: int) -> Sequence[Member]:
    del window
    return ()


def _order(rules: Rules, family: FamilySpec, index: int, parent: Tensors, labels: tuple[str, ...]) -> Order:
    """Return an order that asks for means: no draws, nothing to learn."""
    return Order(
        window=index,
        family=family,
        learn=replace(rules.learn, draws=0),
        chain_seed=rules.chain.seed,
        seed=window_seed(rules.chain.seed, index),
        parent=parent,
        labels_before=labels,
        labels=labels,
        arrivals=(),
        members=(),
    )


def sequential_lora(updater: Updater, rules: Rules, windows: Windows, lr: float, told: Told) -> Memory:
    """Learn the same windows by maximum likelihood from yesterday's weights, predicting first.

    Step size `lr` is LoRA's own; everything else (sites, epochs, batches, order) is ours.
    """
    schedule = replace(rules.learn.schedule, lr=lr)
    learn = replace(rules.learn, draws=0, beta=1.0, panel=False, schedule=schedule)
    point = FamilySpec(name="point", options={})
    return sequential(updater, replace(rules, family=point, learn=learn), windows, told)


def sequential(
    updater: Updater,
    rules: Rules,
    windows: Windows,
    told: Told,
    *,
    sample: int = SAMPLE,
    rehearsed: Rehearsed = _nothing,
) -> Memory:
    """Run the rules' family through the windows as the chain would, predicting before learning.

    `rehearsed(window)` names examples of earlier windows that are learned again beside this one's.
    """
    indices, everyone = sorted(windows), [(w, m) for w in sorted(windows) for m in windows[w]]
    parent: Tensors = {}
    labels: tuple[str, ...] = ()
    forecasts: dict[str, Forecast] = {}
    matrix, outcomes = [], []
    for done, index in enumerate(indices, start=1):
        arrived = [m for _, m in everyone if m.arrived < index and m.event_id not in forecasts]
        learned = (*windows[index], *rehearsed(index))
        asked = replace(
            _order(rules, rules.family, index - 1, parent, labels),
            learn=rules.learn,
            labels=labels_after(labels, windows[index]),
            arrivals=tuple(m.text for m in arrived),
            members=tuple((m.text, m.label) for m in learned),
            arrival_tasks=tasks_of(arrived),
            member_tasks=tasks_of(learned),
        )
        outcome = updater.carry_out(asked)
        rows = zip(arrived, outcome.forecasts, strict=bool(outcome.forecasts))
        forecasts |= {m.event_id: told_by_name(outcome.columns, row) for m, row in rows}
        forecasts = {m.event_id: {} for m in arrived} | forecasts
        parent, labels = outcome.tensors, asked.labels
        asked = _order(rules, rules.family, index, parent, labels)
        matrix.append(remembered(updater, asked, [windows[w] for w in indices[:done]], sample))
        outcomes.append(outcome)
        told()
    return Memory(
        predictions=tuple(Prediction(w, m.label, forecasts.get(m.event_id) or None) for w, m in everyone),
        matrix=tuple(matrix),
        kl=tuple(o.kl for o in outcomes),
        seconds=tuple(o.seconds for o in outcomes),
    )


def our_matrix(
    updater: Updater,
    rules: Rules,
    beliefs: Mapping[int, tuple[Tensors, tuple[str, ...]]],
    windows: Windows,
    told: Told,
) -> tuple[tuple[float | None, ...], ...]:
    """Return the accuracy of each window's posterior mean on samples of it and those before."""
    indices, matrix = sorted(windows), []
    for done, index in enumerate(indices, start=1):
        tensors, labels = beliefs[index]
        asked = _order(rules, rules.family, index, tensors, labels)
        matrix.append(remembered(updater, asked, [windows[w] for w in indices[:done]]))
        told()
    return tuple(matrix)


def remembered(
    updater: Updater, asked: Order, windows: Sequence[Sequence[Member]], sample: int = SAMPLE
) -> tuple[float | None, ...]:
    """Return the accuracy on a spread sample of each window."""
    samples = [spread(window, sample) for window in windows]
    shown = [m for sample in samples for m in sample]
    texts = tuple(m.text for m in shown)
    outcome = updater.carry_out(replace(asked, arrivals=texts, arrival_tasks=tasks_of(shown)))
    rows = iter(outcome.forecasts)
    return tuple(_share(sample, outcome.columns, rows) for sample in samples)


def _share(sample: Sequence[Member], columns: Sequence[str], rows: Any) -> float | None:
    right = [best_guess(told_by_name(columns, next(rows))) == m.label for m in sample]
    return sum(right) / len(right) if right else None
