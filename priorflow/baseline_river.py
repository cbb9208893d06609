"""What a bag of words makes of the same stream: the yardstick that costs nothing.

It lives under the rules of the chain: an event is predicted with what had been learned when it arrived,
a window is learned once all that arrived before its end is predicted, and classes come as they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from river.feature_extraction import BagOfWords
from river.naive_bayes import MultinomialNB

from priorflow.scores import Prediction, best_guess, spread
from stream.plan import Forecast, Member
from stream.record import Position

NAME: Final = "bag of words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What it foretold of every member, by window, and how it remembers (see `scores.Matrix`)."""

    predictions: tuple[Prediction, ...]
    matrix: tuple[tuple[float | None, ...], ...]


def bag_of_words(members: Mapping[int, Sequence[Member]], *, sample: int = 64) -> Baseline:
    """Predict and learn the windows in order; `sample` examples a window show what is remembered.

    Windows are keyed by `Snapshot.index`, the number of windows closed once they were learned.
    """
    classifier: Any = MultinomialNB  # river leaves its constructor and text input untyped
    model: Any = BagOfWords() | classifier()
    windows = sorted(members)
    everyone = [(w, m) for w in windows for m in members[w]]
    forecasts: dict[Position, Forecast | None] = {}
    matrix = []
    for done, index in enumerate(windows, start=1):
        arrived = (m for _, m in everyone if m.arrived < index and m.event not in forecasts)
        forecasts |= {m.event: _forecast(model, m) for m in arrived}
        for member in members[index]:
            model.learn_one(member.text, member.label)
        matrix.append(tuple(_accuracy(model, spread(members[w], sample)) for w in windows[:done]))
    told = tuple(Prediction(w, m.label, forecasts[m.event]) for w, m in everyone)
    return Baseline(predictions=told, matrix=tuple(matrix))


def _forecast(model: Any, member: Member) -> Forecast | None:
    """Return probabilities by class, or None while no class is known."""
    given: dict[str, float] = model.predict_proba_one(member.text)
    whole = sum(given.values())
    return {label: float(p) / whole for label, p in given.items()} if given else None


def _accuracy(model: Any, members: Sequence[Member]) -> float | None:
    if not members:
        return None
    right = 0
    for member in members:
        forecast = _forecast(model, member)
        right += forecast is not None and best_guess(forecast) == member.label
    return right / len(members)
