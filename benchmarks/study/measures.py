"""What a run is worth: numbers of a trace, each None where a method has no such thing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any, Final

from benchmarks.study.walk import Told, Trace, is_right
from posterior.panel import NEW
from priorflow import scores
from priorflow.scores import Prediction, best_guess, chance
from stream.plan import Forecast

TEMPERATURES: Final = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)

Sure = tuple[float, bool]  # the probability of the best guess, and whether it is right


def measures(trace: Trace, *, pi_new: float) -> dict[str, Any]:
    """Return every measure of a run; accuracies of what is kept are on texts that nobody learned.

    `pi_new` is kept for classes that nobody has seen, where a method does not say it text by text.
    """
    heard = [one for one in trace.told if one.forecast is not None]
    total = scores.prequential(map(_prediction, trace.told), pi_new=pi_new).total
    sure, sure_at_end = surety(trace.told, pi_new), surety(trace.final, pi_new)
    return {
        "learning_accuracy": learning_accuracy(trace.matrix),
        "final_accuracy": statistics.fmean(is_right(one) for one in trace.final),
        "final_accuracy_balanced": balanced(trace.final),
        "final_ece": scores.score(list(map(_prediction, trace.final)), pi_new=pi_new).ece,
        "final_ece_adaptive": adaptive_ece(sure_at_end),
        "final_ece_known": scores.score(
            list(map(_prediction, map(among_known, trace.final))), pi_new=pi_new
        ).ece,
        "forgetting": scores.forgetting(trace.matrix),
        "backward_transfer": backward_transfer(trace.matrix),
        "prequential_accuracy": total and total.accuracy,
        "prequential_nll": total and total.nll,
        "prequential_nll_seen": _mean(cost(one, pi_new) for one in heard if knew(one)),
        "prequential_ece": total and total.ece,
        "prequential_ece_adaptive": adaptive_ece(sure) if sure else None,
        "brier": total and total.brier,
        "new_class_auroc": auroc([(novelty(one.forecast or {}), not knew(one)) for one in heard]),
        "risk_coverage_area": risk_coverage_area(sure) if sure else None,
        "cpu_seconds": sum(trace.foretell_cpu) + sum(trace.learn_cpu),
        "last_learn_cpu_seconds": trace.learn_cpu[-1],
        "bytes_carried": trace.carried,
    }


def among_known(one: Told) -> Told:
    """Return what is said of a text that is of a known class: nothing is kept for any other."""
    forecast = {label: p for label, p in (one.forecast or {}).items() if label != NEW}
    whole = math.fsum(forecast.values())
    if not whole:
        return one
    return replace(one, forecast={label: p / whole for label, p in forecast.items()} | {NEW: 0.0})


def learning_accuracy(matrix: scores.Matrix) -> float | None:
    """Return the mean accuracy on a window's texts right after it was learned."""
    return None if len(matrix) < len(matrix[-1]) else _mean(row[-1] for row in matrix)


def backward_transfer(matrix: scores.Matrix) -> float | None:
    """Return the mean, over windows but the last, of accuracy at the end minus that right after learning."""
    if len(matrix) < len(matrix[-1]):
        return None
    pairs = [(row[-1], end) for row, end in zip(matrix[:-1], matrix[-1], strict=False)]
    return _mean(end - begun for begun, end in pairs if begun is not None and end is not None)


def balanced(shown: Sequence[Told]) -> float:
    """Return the mean over classes of the share of their texts that are recognised."""
    labels = sorted({one.label for one in shown})
    return statistics.fmean(
        statistics.fmean(is_right(one) for one in shown if one.label == label) for label in labels
    )


def auroc(scored: Sequence[tuple[float, bool]]) -> float | None:
    """Return P(score of a true one > score of a false one), ties half; None without both kinds."""
    true, false = (sorted(s for s, kind in scored if kind is side) for side in (True, False))
    if not true or not false:
        return None
    below, equal, at, upto = 0, 0, 0, 0
    for score in true:
        while at < len(false) and false[at] < score:
            at += 1
        upto = max(upto, at)
        while upto < len(false) and false[upto] == score:
            upto += 1
        below, equal = below + at, equal + upto - at
    return (below + equal / 2) / (len(true) * len(false))


def surety(told: Sequence[Told], pi_new: float) -> list[Sure]:
    """Return, of every forecast, the probability of its best guess and whether that is the truth."""
    return [(_confidence(one, pi_new), is_right(one)) for one in told if one.forecast is not None]


def adaptive_ece(sure: Sequence[Sure], *, bins: int = scores.BINS) -> float:
    """Return the calibration error over bins of equally many: sum_b |sum_(i in b) (right_i - p_i)| / n.

    Forecasts that are equally sure count as right as they are together, so that their order never matters.
    """
    ranked: list[float] = []
    for confidence, group in groupby(sorted(sure), key=lambda one: one[0]):
        rights = [right for _, right in group]
        ranked += [statistics.fmean(rights) - confidence] * len(rights)
    edges = [b * len(ranked) // bins for b in range(bins + 1)]
    return math.fsum(abs(math.fsum(ranked[low:high])) for low, high in pairwise(edges)) / len(ranked)


def risks(sure: Sequence[Sure]) -> list[float]:
    """Return the error among the surest, for one text, two, and so on; of equals, wrong ones come first."""
    errors, out = 0, []
    for covered, (_, right) in enumerate(sorted(sure, key=lambda s: (-s[0], s[1])), start=1):
        errors += not right
        out.append(errors / covered)
    return out


def risk_coverage_area(sure: Sequence[Sure]) -> float:
    """Return the mean over coverages of the error among the surest."""
    return statistics.fmean(risks(sure))


def novelty(forecast: Forecast) -> float:
    """Return how likely a class unseen is said to be; where nothing is said, how unsure the forecast is."""
    return forecast[NEW] if NEW in forecast else 1 - max(forecast.values())


def cost(one: Told, pi_new: float) -> float:
    """Return -log p(truth) in nats."""
    return -math.log(chance(one.forecast or {}, one.label, pi_new=pi_new))


def scaled(trace: Trace, *, pi_new: float) -> Trace:
    """Return the run with each forecast at the temperature that would have served the windows before best.

    Only forecasts of classes known at the time choose. What is recalled at the end is scaled by all windows.
    """
    paid = _paid(trace.told, pi_new)
    best = {arrived: _best(paid, arrived) for arrived in {one.arrived for one in trace.told}}
    told = tuple(_tempered(one, best[one.arrived]) for one in trace.told)
    last = _best(paid, len(trace.matrix))
    return replace(trace, told=told, final=tuple(_tempered(one, last) for one in trace.final))


def _paid(told: Sequence[Told], pi_new: float) -> Mapping[int, Mapping[float, float]]:
    """Return what each window's texts of known classes would have cost at each temperature, nats."""
    known: dict[int, list[Told]] = {}
    for one in told:
        known.setdefault(one.window, []).extend([one] if knew(one) else [])
    return {
        window: {t: math.fsum(cost(_tempered(one, t), pi_new) for one in ones) for t in TEMPERATURES}
        for window, ones in known.items()
    }


def _best(paid: Mapping[int, Mapping[float, float]], windows: int) -> float:
    """Return the temperature that was best for the first windows; of equals, the nearest to 1."""
    costs = {t: math.fsum(by[t] for window, by in paid.items() if window < windows) for t in TEMPERATURES}
    return min(costs, key=lambda t: (costs[t], abs(t - 1)))


def _tempered(one: Told, temperature: float) -> Told:
    return one if one.forecast is None else replace(one, forecast=tempered(one.forecast, temperature))


def tempered(forecast: Forecast, temperature: float) -> Forecast:
    """Return p^(1/T), normalised: below 1 a forecast becomes surer, above 1 less sure."""
    if temperature == 1:
        return forecast
    raised = {label: p ** (1 / temperature) for label, p in forecast.items()}
    whole = math.fsum(raised.values())
    return {label: p / whole for label, p in raised.items()}


def _prediction(one: Told) -> Prediction:
    return Prediction(one.window, one.label, one.forecast)


def knew(one: Told) -> bool:
    """Return whether a forecast was made that knows the truth's class."""
    return one.label in (one.forecast or {})


def _confidence(one: Told, pi_new: float) -> float:
    forecast = one.forecast or {}
    return chance(forecast, best_guess(forecast), pi_new=pi_new)


def _mean(values: Iterable[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return statistics.fmean(found) if found else None
