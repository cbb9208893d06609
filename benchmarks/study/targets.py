"""The targets, each with what was measured: met, short, or open where an interval holds the target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from benchmarks.study.measures import scaled
from benchmarks.study.methods import LORA, PRIORFLOW, RETRAINED, RIVALS, TEMPERED
from benchmarks.study.paired import Difference, both, costs, difference, final_rights, over_seeds
from benchmarks.study.walk import Trace

GROWING: Final = ("mails",)  # main streams whose classes appear as they go, beside earlier ones
ABLATIONS: Final = ("frozen_after_4", "frozen_panel")

Row = Mapping[str, Any]
Traces = Mapping[tuple[str, str, int], Trace]  # by stream, method and seed
Verdict = Literal["met", "short", "open"]


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


def comparisons(traces: Traces, names: Sequence[str], *, pi_new: float) -> list[Compared]:
    """Return the default method against each of the others, wherever both were run."""

    def nll(trace: Trace) -> Sequence[float | None]:
        return costs(trace, pi_new)

    out = []
    for name in names:
        for against in (LORA, *RIVALS, *RETRAINED, *ABLATIONS):
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
    seeds = [s for (name, method, s) in traces if (name, method) == (stream, PRIORFLOW)]
    shared = sorted(s for s in seeds if (stream, against, s) in traces)
    if not shared:
        return []
    sides = [over_seeds([values(traces[stream, m, s]) for s in shared]) for m in (PRIORFLOW, against)]
    found = difference(*both(*sides))
    return [Compared(stream=stream, against=against, measure=measure, seeds=tuple(shared), found=found)]


def with_scaled(traces: Traces, *, pi_new: float) -> dict[tuple[str, str, int], Trace]:
    """Return the traces, and beside each of some methods the same at prequential temperatures."""
    more = {
        (stream, name, seed): scaled(trace, pi_new=pi_new)
        for name, source in TEMPERED.items()
        for (stream, method, seed), trace in traces.items()
        if method == source
    }
    return {**traces, **more}


def targets(rows: Sequence[Row], found: Sequence[Compared], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return every target of the main streams that can be judged by what was run."""
    out = []
    for name in names:
        ours, lora, best = averaged(rows, name, PRIORFLOW), averaged(rows, name, LORA), retrained(rows, name)
        if ours is not None:
            joint = averaged(rows, name, best)
            out += [
                *_paired(name, ours, best, best_scaled(rows, name), found),
                *_alone(name, ours),
                *_against(name, ours, lora, joint),
            ]
    return out


def retrained(rows: Sequence[Row], stream: str) -> str:
    """Return the retraining that is more accurate at the end; the first where none was run."""
    found = {method: averaged(rows, stream, method) for method in RETRAINED}
    return max(RETRAINED, key=lambda method: (found[method] or {"final_accuracy": -1.0})["final_accuracy"])


def best_scaled(rows: Sequence[Row], stream: str) -> str:
    """Return the baseline that foretells best at prequential temperatures; the first where none was run."""
    found = {method: averaged(rows, stream, method) for method in RIVALS}
    costs = {m: row["prequential_nll"] for m, row in found.items() if row and "prequential_nll" in row}
    return min(costs or RIVALS, key=lambda method: costs.get(method, 0.0))


def foretells(ours: Row) -> bool:
    """Return whether a stream shows a class again, so that there is more to foretell than that one is new."""
    return "prequential_nll_seen" in ours


def control(found: Sequence[Compared], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the target of controls: never worse than sequential LoRA."""
    return [
        _bounded(c, "final accuracy minus sequential LoRA's, a control", "at least", 0.0)
        for c in found
        if c.stream in names and (c.against, c.measure) == (LORA, "final_accuracy")
    ]


def averaged(rows: Sequence[Row], stream: str, method: str) -> Row | None:
    """Return the means over seeds of a method's row; None if it was not run."""
    chosen = [r for r in rows if (r["stream"], r["method"]) == (stream, method)]
    if not chosen:
        return None
    numbers = [name for name, value in chosen[0].items() if isinstance(value, float)]
    return {name: statistics.fmean(r[name] for r in chosen) for name in numbers}


def _paired(name: str, ours: Row, best: str, rival: str, found: Sequence[Compared]) -> list[dict[str, Any]]:
    asked = (
        ("final accuracy minus the better joint's", best, "final_accuracy", "at least", -0.01),
        ("prequential NLL minus the best scaled baseline's", rival, "prequential_nll", "at most", 0.0),
        (
            "final accuracy minus that of adapters and class rows frozen after window 4",
            ABLATIONS[0],
            "final_accuracy",
            "at least",
            0.0,
        ),
        (
            "final accuracy minus that of frozen features alone",
            ABLATIONS[1],
            "final_accuracy",
            "at least",
            0.0,
        ),
    )
    return [
        _bounded(c, what, bound, target)
        for what, against, measure, bound, target in asked
        for c in found
        if (c.stream, c.against, c.measure) == (name, against, measure)
        and (measure != "prequential_nll" or foretells(ours))
    ]


def _alone(name: str, ours: Row) -> list[dict[str, Any]]:
    asked = (
        ("forgetting", "forgetting", 0.01),
        ("prequential ECE", "prequential_ece", 0.03),
        ("final ECE", "final_ece", 0.03),
    )
    return [_plain(name, what, "at most", target, ours[measure]) for what, measure, target in asked]


def _against(name: str, ours: Row, lora: Row | None, joint: Row | None) -> list[dict[str, Any]]:
    out = []
    if lora is not None:
        gap = ours["learning_accuracy"] - lora["learning_accuracy"]
        out.append(_plain(name, "learning accuracy minus sequential LoRA's", "at least", -0.01, gap))
    if lora is not None and foretells(ours):
        ratio = ours["prequential_nll"] / lora["prequential_nll"]
        most = 0.65 if name in GROWING else 0.95
        out.append(_plain(name, "prequential NLL / sequential LoRA's", "at most", most, ratio))
    if joint is not None:
        share = ours["last_learn_cpu_seconds"] / joint["last_learn_cpu_seconds"]
        out.append(_plain(name, "CPU of the last window / retraining's", "at most", 0.2, share))
    return out


def _plain(stream: str, what: str, bound: str, target: float, measured: float) -> dict[str, Any]:
    met = measured >= target if bound == "at least" else measured <= target
    said = {"stream": stream, "what": what, "bound": bound, "target": target, "measured": round(measured, 4)}
    return {**said, "interval": None, "verdict": "met" if met else "short"}


def _bounded(found: Compared, what: str, bound: str, target: float) -> dict[str, Any]:
    low, high = found.found.low, found.found.high
    said = _plain(found.stream, what, bound, target, found.found.value)
    return {**said, "interval": [round(low, 4), round(high, 4)], "verdict": judged(low, high, bound, target)}


def judged(low: float, high: float, bound: str, target: float) -> Verdict:
    """Return met or short if the whole interval is on one side of the target, open if it holds it."""
    worst, best = (low, high) if bound == "at least" else (-high, -low)
    goal = target if bound == "at least" else -target
    return "met" if worst >= goal else "short" if best < goal else "open"
