"""What is asked of a candidate and of a champion, and how a gate answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainers.wager import CLIP

Verdict = Literal["pass", "fail", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is asked of candidate and champion; the defaults say why.

    `alpha` and `rollback_alpha` hold for the whole life of one champion, however often one looks; a
    rollback acts by itself, so its level is stricter. `min_gain` 0 asks for better at all; more keeps
    champions from following each other for nothing. `min_recall` is low because it is there to notice a
    class that is lost, not to ask for quality; classes rarer than `rare` and without enough labels are
    named but not waited for, or one odd label would hold up all. One label of K classes teaches log K
    nats on average at most, so `max_kl_per_example` is a belief that jumped. `max_p99_ms` and `smoke` are
    asked for only where they are set: a gate that nobody measures would wait for ever. Of fewer than 100
    answers the p99 is merely the slowest.
    """

    alpha: float = 0.05
    rollback_alpha: float = 0.01
    clip: float = CLIP
    min_gain: float = 0.0
    min_labels: int = 100
    guard_alpha: float = 0.05
    max_ece: float = 0.2
    min_recall: float = 0.1
    min_labels_per_class: int = 20
    rare: float = 0.02
    max_kl_per_example: float = 50.0
    max_p99_ms: float | None = None
    min_answers: int = 100
    smoke: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "rollback_alpha", "guard_alpha"):
            _within(name, getattr(self, name), 0 < getattr(self, name) < 1, "between 0 and 1")
        for name in ("max_ece", "min_recall", "rare"):
            _within(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("clip", "max_kl_per_example", "max_p99_ms"):
            if (value := getattr(self, name)) is not None:
                _within(name, value, 0 < value < math.inf, "positive")
        for name in ("min_labels", "min_labels_per_class", "min_answers"):
            _within(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _within("smoke", self.smoke, isinstance(self.smoke, bool), "true or false")
        _within("min_gain", self.min_gain, 0 <= self.min_gain < self.clip, "from 0 to below clip")


@dataclass(frozen=True, slots=True)
class Finding:
    """One gate's answer; `line` says it to the operator."""

    gate: str
    verdict: Verdict
    line: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, number in self.numbers.items():
            if not math.isfinite(number):
                msg = f"gate {self.gate}: {name} is {number}, which is no evidence; measure it again"
                raise ValueError(msg)


def verdict(findings: Iterable[Finding]) -> Verdict:
    """Return fail if any fails, else wait if any waits or nothing was judged, else pass."""
    said = {finding.verdict for finding in findings}
    if "fail" in said:
        return "fail"
    return "pass" if said == {"pass"} else "wait"


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return verdict and findings as JSON values for the decision log."""
    found = tuple(findings)
    return {"verdict": verdict(found), "gates": [asdict(f) for f in found]}


def _within(name: str, value: float, holds: bool, where: str) -> None:
    if not holds:
        msg = f"{name} is {value}; it must be {where}"
        raise ValueError(msg)
