"""Is the candidate sound by itself? Gates that guard, and compare it with nobody.

A guard passes while its measure is within its bound, and fails where it is beyond by more than chance
explains at `guard_alpha` and one look; between the two, and on too few labels, it waits. A pass is about
what was measured: only the fail has a level.

Given the forecasts, one label moves the calibration error of n events by at most 1 / n (McDiarmid 1989),
and noise alone lifts its expectation by at most sum_b sqrt(n_b) / (2 n). Recall k / n comes from a class
at or above the floor with probability at most exp(-n kl(k / n, floor)) (Chernoff); classes share the
level (Bonferroni). Both take labels as independent given the forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from posterior.calibration import ReliabilityBin
from trainers.bounds import Bounds, Finding

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many events had this label, and how many of them were answered with it.

    `share` is the class's share of all labels, where these are not all of them.
    """

    label: str
    labels: int
    found: int
    share: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.found <= self.labels:
            msg = f"class {self.label!r}: {self.found} found of {self.labels} labels; count again"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The 99th percentile of the time to an answer, in milliseconds, over `answers`."""

    answers: int
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """What came of loading `snapshot` in a clean process and asking it something; `why` if nothing did.

    `ended`: whether somebody ended that process from outside, which says nothing of the snapshot.
    `latency`: how long its answers took there, where that was asked for.
    """

    snapshot: str
    loaded: bool
    why: str = ""
    ended: bool = False
    latency: Latency | None = None


def calibration(bounds: Bounds, bins: Sequence[ReliabilityBin]) -> Finding:
    """Ask whether stated probabilities are kept: expected calibration error within `max_ece`."""
    n = sum(b.count for b in bins)
    if n < bounds.min_labels:
        return Finding("calibration", "wait", f"{n} of {bounds.min_labels} labels; wait for more")
    ece = math.fsum(b.count * abs(b.accuracy - b.confidence) for b in bins) / n
    lifted = math.fsum(math.sqrt(b.count) for b in bins) / (2 * n)
    chance = lifted + math.sqrt(-math.log(bounds.guard_alpha) / (2 * n))
    numbers = {"ece": ece, "chance": chance, "bound": bounds.max_ece, "labels": n}
    line = f"ece {ece:.3f} on {n} labels, bound {bounds.max_ece:.3f}"
    if ece <= bounds.max_ece:
        return Finding("calibration", "pass", line, numbers)
    if ece - chance <= bounds.max_ece:
        line += f"; chance alone may be {chance:.3f} of it, wait for more labels"
        return Finding("calibration", "wait", line, numbers)
    line += ", and not by chance; look at the reliability diagram of the report"
    return Finding("calibration", "fail", line, numbers)


def recall(bounds: Bounds, classes: Sequence[ClassCount]) -> Finding:
    """Ask whether every class that is not rare is still found: recall of the worst at least `min_recall`."""
    rare, few, judged = _sorted_out(bounds, classes)
    if not judged:
        line = f"no class has {bounds.min_labels_per_class} labels yet; wait for more"
        return Finding("recall", "wait", line)
    worst = min(judged, key=lambda c: (c.found / c.labels, c.label))
    numbers = {"recall": worst.found / worst.labels, "bound": bounds.min_recall, "labels": worst.labels}
    line = (
        f"worst class {worst.label!r}: {worst.found} of {worst.labels} found, floor {bounds.min_recall:.2f}"
    )
    share = bounds.guard_alpha / len(judged)
    if lost := [c for c in judged if _surely_below(c, bounds.min_recall, share)]:
        line += f"; lost beyond chance: {_names(lost)}; look at their latest labels"
        return Finding("recall", "fail", line, numbers)
    if worst.found < bounds.min_recall * worst.labels:
        return Finding("recall", "wait", f"{line}; this may be chance, wait for more labels", numbers)
    if few:
        line += f"; fewer than {bounds.min_labels_per_class} labels, wait for more: {_names(few)}"
        return Finding("recall", "wait", line, numbers)
    return Finding("recall", "pass", line + (f"; too rare to judge: {_names(rare)}" if rare else ""), numbers)


def movement(bounds: Bounds, kl_per_example: float | None) -> Finding:
    """Ask whether the last window moved the belief by no more than it could have taught."""
    if kl_per_example is None:
        return Finding("movement", "wait", "no window was learned yet")
    numbers = {"kl_per_example": kl_per_example, "bound": bounds.max_kl_per_example}
    line = f"moved {kl_per_example:.2f} nats per example, bound {bounds.max_kl_per_example:.2f}"
    if kl_per_example <= bounds.max_kl_per_example:
        return Finding("movement", "pass", line, numbers)
    line += "; look at the window's members and at learn.lr before anything of this chain is promoted"
    return Finding("movement", "fail", line, numbers)


def latency(bounds: Bounds, seen: Latency | None) -> Finding:
    """Ask whether answers come in time; the percentile is taken as measured, without its error."""
    assert bounds.max_p99_ms is not None, "asked without a bound"
    if seen is None or seen.answers < bounds.min_answers:
        had = 0 if seen is None else seen.answers
        return Finding("latency", "wait", f"{had} of {bounds.min_answers} answers timed; ask for more")
    numbers = {"p99_ms": seen.p99_ms, "bound": bounds.max_p99_ms, "answers": seen.answers}
    line = f"p99 {seen.p99_ms:.1f} ms over {seen.answers} answers, bound {bounds.max_p99_ms:.1f} ms"
    if seen.p99_ms <= bounds.max_p99_ms:
        return Finding("latency", "pass", line, numbers)
    return Finding("latency", "fail", f"{line}; take fewer draws, or measure on a quiet machine", numbers)


def smoke(candidate: str, seen: Smoke | None) -> Finding:
    """Ask whether this very candidate was loaded in a clean process and answered."""
    if seen is None or seen.snapshot != candidate:
        return Finding("smoke", "wait", f"{candidate} was not loaded in a clean process yet")
    if seen.loaded:
        return Finding("smoke", "pass", f"{candidate} loads in a clean process and answers")
    if seen.ended:
        return Finding("smoke", "wait", f"{candidate}: its clean process was ended from outside: {seen.why}")
    return Finding("smoke", "fail", f"{candidate} does not load in a clean process: {seen.why}")


def _sorted_out(bounds: Bounds, classes: Sequence[ClassCount]) -> tuple[list[ClassCount], ...]:
    """Return the classes too rare to wait for, those with too few labels yet, and those to be judged."""
    whole, enough = sum(c.labels for c in classes), bounds.min_labels_per_class
    few = [c for c in classes if c.labels < enough]
    rare = [c for c in few if not c.labels or _share(c, whole) < bounds.rare]
    return rare, [c for c in few if c not in rare], [c for c in classes if c.labels >= enough]


def _share(one: ClassCount, whole: int) -> float:
    return one.labels / whole if one.share is None else one.share


def _surely_below(one: ClassCount, floor: float, alpha: float) -> bool:
    seen = one.found / one.labels
    return seen < floor and one.labels * _kl(seen, floor) >= -math.log(alpha)


def _kl(p: float, q: float) -> float:
    """Return KL(Bernoulli(p) || Bernoulli(q)) in nats, for p < q."""
    if q == 1:
        return math.inf
    hits = p * math.log(p / q) if p else 0.0
    return hits + (1 - p) * math.log((1 - p) / (1 - q))


def _names(classes: Sequence[ClassCount]) -> str:
    more = len(classes) - _NAMED
    return ", ".join(repr(c.label) for c in classes[:_NAMED]) + (f" and {more} more" if more > 0 else "")
