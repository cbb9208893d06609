"""How well events were foretold before they were learned; the same rules for every method.

A forecast gives probabilities to the classes known when the event arrived, and may give one to a class
that nobody had seen (`NEW`), pi_new. Where it does not, a fixed share is kept for it, so known classes
share 1 - pi_new; an event of an unknown class costs -log(pi_new) either way. An event that arrived before
any class was known has no forecast and no score.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor

from posterior.calibration import ReliabilityBin, brier, ece, reliability
from posterior.panel import NEW
from stream.plan import Forecast, Member

FLOOR: Final = sys.float_info.epsilon  # a stated impossibility costs 36 nats, not infinitely many
BINS: Final = 15
_SUM_TOLERANCE: Final = 1e-6

T = TypeVar("T")

Matrix = Sequence[Sequence[float | None]]
"""Row i: accuracy on the mails of windows 0..i after learning window i; None where not measured."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said of one event, and what it turned out to be; `window` is the one that learned it."""

    window: int
    label: str
    forecast: Forecast | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Means over `count` forecasts: accuracy and ece in [0, 1], nll in nats, brier in [0, 2]."""

    count: int
    accuracy: float
    nll: float
    ece: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prequential:
    """Scores by window and over all; nothing here was learned before it was foretold.

    `without` counts the events of each window that had no forecast. `left_out` names the windows in
    which no event had one; they are in no mean.
    """

    windows: Mapping[int, Score]
    total: Score | None
    without: Mapping[int, int]
    left_out: tuple[int, ...]

    @property
    def ece_by_window(self) -> float | None:
        """The mean of the windows' ECE: one that is too sure and one too modest do not cancel in it."""
        return statistics.fmean(s.ece for s in self.windows.values()) if self.windows else None


def predictions(members: Mapping[int, Sequence[Member]]) -> list[Prediction]:
    """Return what was foretold of the members of each window, in window order."""
    return [
        Prediction(window, member.label, member.forecast)
        for window in sorted(members)
        for member in members[window]
    ]


def spread(members: Sequence[T], count: int) -> Sequence[T]:
    """Return at most `count` members, evenly spaced over the window."""
    if len(members) <= count:
        return members
    return [members[i * len(members) // count] for i in range(count)]


def chance(forecast: Forecast, label: str, *, pi_new: float) -> float:
    """Return the probability given to `label`: its share of 1 - pi_new, or pi_new if it was unknown.

    `pi_new` is what is kept where the forecast says nothing of new classes itself.
    """
    if NEW in forecast:
        return max(forecast[label if label in forecast else NEW], FLOOR)
    given = (1 - pi_new) * forecast[label] if label in forecast else pi_new
    return max(given, FLOOR)


def shared(forecast: Forecast, labels: Iterable[str]) -> Forecast:
    """Return the forecast over these labels too, for comparing beliefs of which one knows more classes.

    What it gives to a new class is split evenly between those of `labels` it does not know and any other:
    to say "something new" must not be cheaper than to say what.
    """
    unknown = [label for label in labels if label not in forecast]
    if NEW not in forecast or not unknown:
        return forecast
    part = forecast[NEW] / (len(unknown) + 1)
    return {**forecast, **dict.fromkeys(unknown, part), NEW: part}


def best_guess(forecast: Forecast) -> str:
    """Return the likeliest known class; of equals the first by name, so that scores never waver."""
    return min((label for label in forecast if label != NEW), key=lambda label: (-forecast[label], label))


def score(told: Sequence[Prediction], *, pi_new: float, bins: int = BINS) -> Score:
    """Score the events that had a forecast; ValueError if there is none, or one is no distribution."""
    seen = _with_forecast(told, pi_new)
    if not seen:
        msg = "none of these events was foretold, so there is nothing to score"
        raise ValueError(msg)
    confidence, correct = _verdicts(seen, pi_new)
    return Score(
        count=len(seen),
        accuracy=float(correct.mean()),
        nll=_nll(seen, pi_new),
        ece=ece(confidence, correct, bins=bins),
        brier=_brier(seen, pi_new),
    )


def _nll(seen: Sequence[tuple[str, Forecast]], pi_new: float) -> float:
    return math.fsum(-math.log(chance(f, y, pi_new=pi_new)) for y, f in seen) / len(seen)


def prequential(told: Iterable[Prediction], *, pi_new: float, bins: int = BINS) -> Prequential:
    """Score each window and all of them together, leaving out what nobody could foretell."""
    by_window: dict[int, list[Prediction]] = {}
    for one in told:
        by_window.setdefault(one.window, []).append(one)
    missing = {w: sum(p.forecast is None for p in ps) for w, ps in sorted(by_window.items())}
    scored = [w for w, count in missing.items() if count < len(by_window[w])]
    everything = [p for w in scored for p in by_window[w]]
    return Prequential(
        windows={w: score(by_window[w], pi_new=pi_new, bins=bins) for w in scored},
        total=score(everything, pi_new=pi_new, bins=bins) if everything else None,
        without={w: count for w, count in missing.items() if count},
        left_out=tuple(w for w in missing if w not in scored),
    )


def reliability_bins(
    told: Sequence[Prediction], *, pi_new: float, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram of the events that had a forecast; empty bins are left out."""
    seen = _with_forecast(told, pi_new)
    return tuple(reliability(*_verdicts(seen, pi_new), bins=bins)) if seen else ()


def forgetting(matrix: Matrix) -> float | None:
    """Return the mean over windows of the best accuracy they once had minus the one at the end.

    The last window had no time to be forgotten and is left out; None if nothing else was measured at
    the end. Below 0, learning on has helped older windows.
    """
    end = matrix[-1] if matrix else ()
    losses = []
    for j in range(len(matrix) - 1):
        earlier = [a for row in matrix[:-1] if (a := _cell(row, j)) is not None]
        if earlier and (last := _cell(end, j)) is not None:
            losses.append(max(earlier) - last)
    return math.fsum(losses) / len(losses) if losses else None


def final_accuracy(matrix: Matrix, sizes: Sequence[int]) -> float | None:
    """Return the accuracy of the last posterior over all windows, each weighted by its size."""
    if not matrix:
        return None
    row = zip(matrix[-1], sizes, strict=True)
    measured = [(accuracy, size) for accuracy, size in row if accuracy is not None]
    whole = sum(size for _, size in measured)
    return math.fsum(a * size for a, size in measured) / whole if whole else None


def _cell(row: Sequence[float | None], j: int) -> float | None:
    return row[j] if j < len(row) else None


def _with_forecast(told: Sequence[Prediction], pi_new: float) -> list[tuple[str, Forecast]]:
    if not 0 < pi_new < 1:
        msg = f"pi_new is {pi_new}; it must lie between 0 and 1, both excluded"
        raise ValueError(msg)
    return [(p.label, _distribution(p)) for p in told if p.forecast is not None]


def _distribution(told: Prediction) -> Forecast:
    forecast = told.forecast or {}
    if not forecast or not all(0 <= p <= 1 for p in forecast.values()):  # NaN fails here too
        msg = f"window {told.window}: a forecast must be probabilities of known classes"
        raise ValueError(msg)
    whole = math.fsum(forecast.values())
    if abs(whole - 1) > _SUM_TOLERANCE:
        msg = f"window {told.window}: a forecast sums to {whole:.9f}, not to 1"
        raise ValueError(msg)
    return forecast


def _verdicts(seen: Sequence[tuple[str, Forecast]], pi_new: float) -> tuple[Tensor, Tensor]:
    guesses = [best_guess(forecast) for _, forecast in seen]
    confidence = [chance(f, g, pi_new=pi_new) for g, (_, f) in zip(guesses, seen, strict=True)]
    correct = [float(g == label) for g, (label, _) in zip(guesses, seen, strict=True)]
    double = torch.float64
    return torch.tensor(confidence, dtype=double), torch.tensor(correct, dtype=double)


def _brier(seen: Sequence[tuple[str, Forecast]], pi_new: float) -> float:
    """Return the Brier score with one column more, which stands for every class not yet known."""
    column = {label: k for k, label in enumerate(sorted({c for _, f in seen for c in f} - {NEW}))}
    probs = torch.zeros(len(seen), len(column) + 1, dtype=torch.float64)
    for row, (_, forecast) in enumerate(seen):
        probs[row, -1] = chance(forecast, NEW, pi_new=pi_new)
        for label in forecast.keys() - {NEW}:
            probs[row, column[label]] = chance(forecast, label, pi_new=pi_new)
    targets = [column[label] if label in forecast else len(column) for label, forecast in seen]
    return brier(probs, torch.tensor(targets))
