"""May this candidate become champion, and may this champion stay? Pure functions of evidence.

`better` and `holds` compare, by a bet that may be watched all the time (trainers/wager.py); the gates of
trainers/guards.py ask of the candidate itself. Each answers pass, fail or wait, with its numbers and a
line an operator can act on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from posterior.calibration import ReliabilityBin
from trainers.bounds import Bounds, Finding
from trainers.guards import ClassCount, Latency, Smoke, calibration, latency, movement, recall, smoke
from trainers.wager import Wager, better_by, gain, gain_at_least, gain_at_most, worse_by, worse_lately

_FAR: Final = 1e9  # labels; a rate by which it takes more says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a promotion is decided on; None or empty where nothing was measured yet.

    `champion` is the sha to be replaced (None: there is none yet), `wager` the policy's bet against it.
    `reliability` and `classes` are of events that arrived after the champion, as the policy answered
    them; `kl_per_example` the information of the candidate's last window, in nats.
    """

    candidate: str
    champion: str | None
    wager: Wager | None = None
    reliability: Sequence[ReliabilityBin] = ()
    classes: Sequence[ClassCount] = ()
    kl_per_example: float | None = None
    latency: Latency | None = None
    smoke: Smoke | None = None


def judge(bounds: Bounds, evidence: Evidence) -> tuple[Finding, ...]:
    """Return what every gate says of the candidate; `verdict` sums it up.

    `latency` and `smoke` are asked only where the bounds ask for them; a version that was loaded for the
    one and did not answer fails for the other.
    """
    found = [
        better(bounds, evidence),
        calibration(bounds, evidence.reliability),
        recall(bounds, evidence.classes),
        movement(bounds, evidence.kl_per_example),
    ]
    if bounds.max_p99_ms is not None:
        found.append(latency(bounds, evidence.latency))
    if bounds.smoke or (evidence.smoke is not None and not evidence.smoke.loaded):
        found.append(smoke(evidence.candidate, evidence.smoke))
    return tuple(found)


def better(bounds: Bounds, evidence: Evidence) -> Finding:
    """Ask whether the policy that made the candidate foretells better than the champion.

    What was won long ago is no reason to promote what has turned since: a stretch up to now on which the
    policy was worse, at `rollback_alpha`, fails whatever the whole says.
    """
    if evidence.champion is None:
        return Finding("better", "pass", "there is no champion yet to be better than")
    wager = evidence.wager
    if wager is None or (wager.incumbent, wager.clip) != (evidence.champion, bounds.clip):
        line = (
            f"nothing was compared with champion {evidence.champion} at clip {bounds.clip}; wait for labels"
        )
        return Finding("better", "wait", line)
    numbers = _gains(wager, bounds.alpha, bounds.min_gain)
    if wager.events < bounds.min_labels:
        line = f"{wager.events} of {bounds.min_labels} labels; wait for more"
        return Finding("better", "wait", line, numbers)
    return _weighed(bounds, wager, numbers)


def holds(bounds: Bounds, wager: Wager) -> Finding:
    """Ask whether the live champion (the challenger here) still does no worse than its predecessor's shadow.

    A fail is the signal for an automatic rollback: there is a stretch up to now on which it was worse. It
    asks for no least number of labels; the level holds on few, and harm should not have to wait.
    """
    if not wager.events:
        return Finding("holds", "wait", f"no label came since the promotion over {wager.incumbent}; it stays")
    need = -math.log(bounds.rollback_alpha)
    numbers = _gains(wager, bounds.rollback_alpha, 0.0) | {"log_e_worse": worse_lately(wager)}
    if numbers["log_e_worse"] >= need:
        line = f"worse than {wager.incumbent} of late, {_interval(numbers)} over all; roll back to it"
        return Finding("holds", "fail", line, numbers)
    if numbers["log_e"] >= need:
        return Finding("holds", "pass", f"better than its predecessor: {_interval(numbers)}", numbers)
    return Finding("holds", "wait", f"no worse that one could tell: {_interval(numbers)}; it stays", numbers)


def _weighed(bounds: Bounds, wager: Wager, numbers: Mapping[str, float]) -> Finding:
    need, asked = numbers["log_e_needed"], f"asked for {bounds.min_gain:.3f}"
    if worse_by(wager, -bounds.min_gain) >= need:
        line = f"not better than the champion: {_interval(numbers)}, {asked}; keep the champion"
        return Finding("better", "fail", line, numbers)
    if (lately := worse_lately(wager)) >= -math.log(bounds.rollback_alpha):
        line = f"worse than the champion of late, {_interval(numbers)} over all; keep the champion"
        return Finding("better", "fail", line, {**numbers, "log_e_worse": lately})
    if better_by(wager, bounds.min_gain) >= need:
        return Finding("better", "pass", f"better than the champion: {_interval(numbers)}, {asked}", numbers)
    line = f"undecided: {_interval(numbers)}, {asked}; {_more(numbers)}"
    return Finding("better", "wait", line, numbers)


def _gains(wager: Wager, alpha: float, margin: float) -> dict[str, float]:
    """Return what is known of the gain in nats per event; the bounds are right at all times at once."""
    mean = gain(wager)
    return {
        **({} if mean is None else {"gain": mean}),
        "gain_at_least": gain_at_least(wager, alpha),
        "gain_at_most": gain_at_most(wager, alpha),
        "log_e": better_by(wager, margin),
        "log_e_needed": -math.log(alpha),
        "labels": wager.events,
        "early": wager.early,
    }


def _interval(numbers: Mapping[str, float]) -> str:
    low, high, n = numbers["gain_at_least"], numbers["gain_at_most"], int(numbers["labels"])
    return f"gain {numbers['gain']:+.3f} nats per event, between {low:+.3f} and {high:+.3f}, on {n} labels"


def _more(numbers: Mapping[str, float]) -> str:
    """Say how long to wait: evidence grows about evenly while the difference stays what it is."""
    has, need, n = numbers["log_e"], numbers["log_e_needed"], numbers["labels"]
    wait = n * (need / has - 1) if has > 0 else math.inf
    if wait > _FAR:
        return "nothing speaks for it yet"
    return f"about {math.ceil(wait)} labels more at this rate"
