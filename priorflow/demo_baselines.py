"""Others on the same windows: plain sequential LoRA at the same sites; and what each method remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posterior.family import Tensors
from priorflow.scores import Prediction, best_guess, spread
from stream.intake import labels_after
from stream.plan import Forecast, Member, window_seed
from trainers.loop import Rules
from trainers.window import FamilySpec, Order, Updater

Windows = Mapping[int, Sequence[Member]]  # by Snapshot.index
Told = Callable[[], None]
LORA = "sequential LoRA"
SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a method foretold of each member, and the accuracy matrix of its means."""

    predictions: tuple[Prediction, ...]
    matrix: tuple[tuple[float | None, ...], ...]


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
    family = FamilySpec(name="point", options={})
    learn = replace(rules.learn, draws=0, beta=1.0, schedule=replace(rules.learn.schedule, lr=lr))
    indices, everyone = sorted(windows), [(w, m) for w in sorted(windows) for m in windows[w]]
    parent: Tensors = {}
    labels: tuple[str, ...] = ()
    forecasts: dict[str, Forecast] = {}
    matrix = []
    for done, index in enumerate(indices, start=1):
        arrived = [m for _, m in everyone if m.arrived < index and m.event_id not in forecasts]
        asked = replace(
            _order(rules, family, index - 1, parent, labels),
            learn=learn,
            labels=labels_after(labels, windows[index]),
            arrivals=tuple(m.text for m in arrived),
            members=tuple((m.text, m.label) for m in windows[index]),
        )
        outcome = updater.carry_out(asked)
        rows = zip(arrived, outcome.forecasts, strict=bool(outcome.forecasts))
        forecasts |= {m.event_id: dict(zip(labels, row, strict=True)) for m, row in rows}
        forecasts = {m.event_id: {} for m in arrived} | forecasts
        parent, labels = outcome.tensors, asked.labels
        asked = _order(rules, family, index, parent, labels)
        matrix.append(remembered(updater, asked, [windows[w] for w in indices[:done]]))
        told()
    predictions = tuple(Prediction(w, m.label, forecasts.get(m.event_id) or None) for w, m in everyone)
    return Memory(predictions=predictions, matrix=tuple(matrix))


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
    updater: Updater, asked: Order, windows: Sequence[Sequence[Member]]
) -> tuple[float | None, ...]:
    """Return the accuracy on a spread sample of each window."""
    samples = [spread(window, SAMPLE) for window in windows]
    texts = tuple(m.text for sample in samples for m in sample)
    rows = iter(updater.carry_out(replace(asked, arrivals=texts)).forecasts)
    return tuple(_share(sample, asked.labels_before, rows) for sample in samples)


def _share(sample: Sequence[Member], labels: Sequence[str], rows: Any) -> float | None:
    right = [best_guess(dict(zip(labels, next(rows), strict=True))) == m.label for m in sample]
    return sum(right) / len(right) if right else None
