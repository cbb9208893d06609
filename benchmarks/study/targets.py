"""The targets, each with what was measured: met, short, or open where an interval holds the target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from benchmarks.study.methods import ABLATIONS, LORA, PRIORFLOW, RETRAINED
from benchmarks.study.paired import Difference, both, costs, difference, final_rights, over_seeds
from benchmarks.study.readings import Traces, is_rival
from benchmarks.study.seeds import Row, averaged, half_width, rows_of
from benchmarks.study.walk import Trace

GROWING: Final = ("mails",)  # main streams whose classes appear as they go, beside earlier ones

Pair = tuple[Row, Row]  # ours and another method's, of the same seed
Verdict = Literal["met", "short", "open"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a measure: to be at least or at most so much."""

    what: str
    bound: Literal["at least", "at most"]
    target: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Ours minus another method's, on one stream, over the seeds that both have."""

    stream: str
    against: str
    measure: str
    seeds: tuple[int, ...]
    found: Difference

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as other tools read it."""
        found = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self.found).items()}
        named = {"stream": self.stream, "against": self.against, "measure": self.measure}
        return {**named, "seeds": list(self.seeds), **found}

    @property
    def over(self) -> str:
        """What its interval is over."""
        return "texts" if len(self.seeds) == 1 else f"texts, mean of {len(self.seeds)} seeds"


def comparisons(traces: Traces, names: Sequence[str], *, pi_new: float) -> list[Compared]:
    """Return the default method against each of the others, wherever both were run."""

    def nll(trace: Trace) -> Sequence[float | None]:
        return costs(trace, pi_new)

    rivals = sorted({method for _, method, _ in traces if is_rival(method)})
    out = []
    for name in names:
        for against in (LORA, *rivals, *RETRAINED, *ABLATIONS):
            out += _compared(traces, name, against, "final_accuracy", final_rights)
            if against not in RETRAINED:
                out += _compared(traces, name, against, "prequential_nll", nll)
    return out


def _compared(
    traces: Traces,
    stream: str,
    against: str,
    measure: str,
    values: Callable[[Trace], Sequence[float | None]],
) -> list[Compared]:
    seeds = sorted(s for (name, method, s) in traces if (name, method) == (stream, PRIORFLOW))
    only = traces.get((stream, against, 0))  # of a method that draws nothing: it is each seed's
    theirs = {s: traces.get((stream, against, s), only) for s in seeds}
    pairs = {s: (traces[stream, PRIORFLOW, s], trace) for s, trace in theirs.items() if trace is not None}
    if not pairs:
        return []
    sides = [over_seeds([values(trace) for trace in side]) for side in zip(*pairs.values(), strict=True)]
    found = difference(*both(*sides))
    return [Compared(stream=stream, against=against, measure=measure, seeds=tuple(pairs), found=found)]


def targets(rows: Sequence[Row], found: Sequence[Compared], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return every target of the main streams that can be judged by what was run."""
    out = []
    for name in names:
        ours, best = rows_of(rows, name, PRIORFLOW), retrained(rows, name)
        rival = best_scaled(rows, name) if foretells(ours) else None
        if ours:
            out += [
                *_paired(name, best, rival, found),
                *_alone(name, ours),
                *_against(name, _pairs(rows, name, ours, LORA), _pairs(rows, name, ours, best)),
            ]
    return out


def retrained(rows: Sequence[Row], stream: str) -> str:
    """Return the retraining that is more accurate at the end; the first where none was run."""
    found = {method: averaged(rows, stream, method) for method in RETRAINED}
    return max(RETRAINED, key=lambda method: found[method].get("final_accuracy", -1.0))


def best_scaled(rows: Sequence[Row], stream: str) -> str | None:
    """Return the rival that foretells best, all being at temperatures; None where none was run."""
    rivals = dict.fromkeys(r["method"] for r in rows if r["stream"] == stream and is_rival(r["method"]))
    found = {method: averaged(rows, stream, method) for method in rivals}
    costs = {
        method: means["prequential_nll"] for method, means in found.items() if "prequential_nll" in means
    }
    return min(costs, key=costs.__getitem__, default=None)


def foretells(ours: Sequence[Row]) -> bool:
    """Return whether a stream shows a class again, so that there is more to foretell than that one is new."""
    return any(row["prequential_nll_seen"] is not None for row in ours)


def control(found: Sequence[Compared], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the target of controls: never worse than sequential LoRA."""
    return [
        _bounded(c, Goal("final accuracy minus sequential LoRA's, a control", "at least", 0.0))
        for c in found
        if c.stream in names and (c.against, c.measure) == (LORA, "final_accuracy")
    ]


def _paired(stream: str, best: str, rival: str | None, found: Sequence[Compared]) -> list[dict[str, Any]]:
    accuracy, still = (
        "final_accuracy",
        "final accuracy minus that of adapters and class rows frozen after window 4",
    )
    asked = (
        (best, accuracy, Goal("final accuracy minus the better joint's", "at least", -0.01)),
        (rival, "prequential_nll", Goal("prequential NLL minus the best scaled baseline's", "at most", 0.0)),
        (ABLATIONS[0], accuracy, Goal(still, "at least", 0.0)),
        (ABLATIONS[1], accuracy, Goal("final accuracy minus that of frozen features alone", "at least", 0.0)),
    )
    return [
        _bounded(c, goal)
        for against, measure, goal in asked
        for c in found
        if (c.stream, c.against, c.measure) == (stream, against, measure)
    ]


def _alone(stream: str, ours: Sequence[Row]) -> list[dict[str, Any]]:
    asked = (
        ("forgetting", Goal("forgetting", "at most", 0.01)),
        ("prequential_ece", Goal("prequential ECE", "at most", 0.03)),
        ("final_ece", Goal("final ECE", "at most", 0.03)),
    )
    return [_by_seed(stream, goal, [row[measure] for row in ours]) for measure, goal in asked]


def _against(stream: str, lora: Sequence[Pair], joint: Sequence[Pair]) -> list[dict[str, Any]]:
    out = []
    if lora:
        gaps = [ours["learning_accuracy"] - theirs["learning_accuracy"] for ours, theirs in lora]
        goal = Goal("learning accuracy minus sequential LoRA's", "at least", -0.01)
        out.append(_by_seed(stream, goal, gaps))
    if lora and foretells([ours for ours, _ in lora]):
        most = 0.65 if stream in GROWING else 0.95
        goal = Goal("prequential NLL / sequential LoRA's", "at most", most)
        out.append(_by_seed(stream, goal, _ratios(lora, "prequential_nll")))
    if joint:
        goal = Goal("CPU of the last window / retraining's", "at most", 0.2)
        out.append(_by_seed(stream, goal, _ratios(joint, "last_learn_cpu_seconds")))
    return out


def _pairs(rows: Sequence[Row], stream: str, ours: Sequence[Row], method: str) -> list[Pair]:
    theirs = {row["seed"]: row for row in rows_of(rows, stream, method)}
    return [(row, theirs[row["seed"]]) for row in ours if row["seed"] in theirs]


def _ratios(pairs: Sequence[Pair], measure: str) -> list[float]:
    return [ours[measure] / theirs[measure] for ours, theirs in pairs]


def _by_seed(stream: str, goal: Goal, values: Sequence[float]) -> dict[str, Any]:
    """Judge a mean over seeds, by an interval where there are three of them."""
    mean, half = statistics.fmean(values), half_width(values)
    if half is None:
        return _judged(stream, goal, mean, None, None)
    return _judged(stream, goal, mean, (mean - half, mean + half), f"{len(values)} seeds")


def _bounded(found: Compared, goal: Goal) -> dict[str, Any]:
    """Judge a difference by its interval."""
    held = found.found
    return _judged(found.stream, goal, held.value, (held.low, held.high), found.over)


def _judged(
    stream: str, goal: Goal, measured: float, ends: tuple[float, float] | None, over: str | None
) -> dict[str, Any]:
    low, high = ends or (measured, measured)
    return {
        "stream": stream,
        **asdict(goal),
        "measured": round(measured, 4),
        "interval": [round(low, 4), round(high, 4)] if ends else None,
        "over": over,
        "verdict": judged(low, high, goal.bound, goal.target),
    }


def judged(low: float, high: float, bound: str, target: float) -> Verdict:
    """Return met or short if the whole interval is on one side of the target, open if it holds it."""
    worst, best = (low, high) if bound == "at least" else (-high, -low)
    goal = target if bound == "at least" else -target
    return "met" if worst >= goal else "short" if best < goal else "open"
