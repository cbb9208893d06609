"""The first gate: may this candidate become champion? A pure function of evidence.

Evidence is labelled events that BOTH were asked about before either had learned them. A champion is
never replaced by something that was not compared with it on the same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """How a snapshot did on some events: accuracy and ece in [0, 1], nll in nats per event."""

    events: int
    accuracy: float
    nll: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A candidate's showing and the champion's on the same events (None: there is no champion yet).

    `kl_per_example` is the information the candidate's last window put in, in nats.
    """

    candidate: Showing
    champion: Showing | None
    kl_per_example: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """Bounds; see the configuration's section `gate`."""

    min_labels: int = 100
    max_nll_increase: float = 0.05
    max_accuracy_drop: float = 0.02
    max_ece: float = 0.2
    max_kl_per_example: float = 50.0


@dataclass(frozen=True, slots=True)
class Check:
    """One condition with its number and its bound."""

    name: str
    passed: bool
    measured: float
    bound: float


def judge(rules: GateRules, evidence: Evidence) -> tuple[Check, ...]:
    """Return every check; the candidate passes if all do."""
    seen, rival = evidence.candidate, evidence.champion
    checks = [
        Check("labels", seen.events >= rules.min_labels, seen.events, rules.min_labels),
        Check("ece", seen.ece <= rules.max_ece, seen.ece, rules.max_ece),
        Check(
            "kl_per_example",
            evidence.kl_per_example <= rules.max_kl_per_example,
            evidence.kl_per_example,
            rules.max_kl_per_example,
        ),
    ]
    if rival is not None:
        worse, lost = seen.nll - rival.nll, rival.accuracy - seen.accuracy
        checks += [
            Check("nll_increase", worse <= rules.max_nll_increase, worse, rules.max_nll_increase),
            Check("accuracy_drop", lost <= rules.max_accuracy_drop, lost, rules.max_accuracy_drop),
        ]
    return tuple(checks)


def as_evidence(evidence: Evidence, checks: tuple[Check, ...]) -> Mapping[str, Any]:
    """Return evidence and checks as JSON values for the decision log."""

    def shown(showing: Showing | None) -> dict[str, float] | None:
        if showing is None:
            return None
        return {name: getattr(showing, name) for name in Showing.__slots__}

    return {
        "candidate": shown(evidence.candidate),
        "champion": shown(evidence.champion),
        "checks": [[c.name, c.passed, c.measured, c.bound] for c in checks],
    }
