"""Two versions asked about the same event: how far apart they are, one event at a time and over many."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from priorflow.scores import FLOOR, shared
from priorflow.serving.version import Version
from trainers.answer import Answer, as_forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An event, what a version said of it, and how long that took."""

    version: Version
    answer: Answer
    seconds: float

    @property
    def withheld(self) -> bool:
        """Tell whether the answer is too unsure for the version's risk."""
        rule = self.version.rule
        return rule is not None and rule.abstains(self.answer.confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two answers differ; `delta_p` is of the first one's label, `kl` in nats, of the second from it."""

    agrees: bool
    delta_p: float
    kl: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """An event that the champion answered and its shadow was asked about too; `at_ms` is its time."""

    event_id: str
    at_ms: int
    champion: Heard
    shadow: Heard
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """How one pair of versions compared so far; sums, of which `events` makes means."""

    champion: str = ""
    shadow: str = ""
    events: int = 0
    agreed: int = 0
    withheld_alike: int = 0
    delta_p: float = 0.0
    kl: float = 0.0
    seconds: float = 0.0


def difference(one: Answer, other: Answer) -> Difference:
    """Compare two answers on the classes that either of them tells apart.

    KL(one || other) = sum_k p_k log(p_k / q_k), with no probability below `FLOOR`. What a version that
    knows fewer classes gives to a new one is split evenly, as the gates do it (`scores.shared`).
    """
    p, q = as_forecast(one), as_forecast(other)
    p, q = dict(shared(p, q)), dict(shared(q, p))
    terms = (
        given * (math.log(max(given, FLOOR)) - math.log(max(q[label], FLOOR))) for label, given in p.items()
    )
    return Difference(
        agrees=one.label == other.label,
        delta_p=abs(p[one.label] - q[one.label]),
        kl=max(0.0, math.fsum(terms)),  # rounding may bring that of two equals below 0
    )


def counted(sums: Sums, beside: Beside) -> Sums:
    """Count an event; another champion or another shadow begins anew."""
    pair = beside.champion.version.snapshot.sha, beside.shadow.version.snapshot.sha
    before = sums if (sums.champion, sums.shadow) == pair else Sums(champion=pair[0], shadow=pair[1])
    found = beside.difference
    return Sums(
        champion=pair[0],
        shadow=pair[1],
        events=before.events + 1,
        agreed=before.agreed + found.agrees,
        withheld_alike=before.withheld_alike + (beside.champion.withheld == beside.shadow.withheld),
        delta_p=before.delta_p + found.delta_p,
        kl=before.kl + found.kl,
        seconds=before.seconds + beside.shadow.seconds,
    )


def chosen(event_id: str, share: float) -> bool:
    """Tell whether an event is among the share that is compared: by its name, so everywhere alike."""
    place = int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big")
    return place < share * 2**64
