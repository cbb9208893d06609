"""The case between the policy and the champion, and that of the champion against its predecessor's shadow.

Evidence so far is kept in the decision log itself.

Each line that the gate writes holds the whole of it, so that evidence survives every restart, and the log
alone says what has been counted. A line that puts somebody in charge ends a case; the next window opens
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from posterior.snapshot import IN_CHARGE, Decision, Snapshot
from trainers import showing as showings
from trainers import wager as wagers
from trainers.bounds import Bounds
from trainers.showing import Answered, Showing
from trainers.wager import Paired, Wager

CASE: Final = "case"  # where a line of the gate keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Evidence so far. `heard` is the last window that was counted, by its index after closing.

    `wager` is None while there is no champion to bet against, `tenure` (the champion, as challenger, against
    the shadow of the one before it) while nobody came before it. `reopened` says why evidence of earlier
    windows had to be left behind, if it had.
    """

    heard: int = 0
    wager: Wager | None = None
    tenure: Wager | None = None
    showing: Showing = field(default_factory=Showing)
    reopened: str | None = None

    @property
    def since(self) -> int:
        """Return how many windows were closed when the first events came that count."""
        return 0 if self.wager is None else self.wager.since


def heard(log: Sequence[Decision]) -> int:
    """Return the last window that the log has an answer for; 0 for none."""
    return max((int(line.evidence[CASE]["heard"]) for line in log if CASE in line.evidence), default=0)


def newest_candidate(log: Sequence[Decision]) -> str | None:
    """Return whom the gates judged last, and not whom they put back; None while they judged nobody."""
    judged = (line for line in reversed(log) if CASE in line.evidence and line.action != "rollback")
    return next((line.snapshot for line in judged), None)


def open_case(
    log: Sequence[Decision],
    champion: Snapshot | None,
    predecessor: Snapshot | None,
    *,
    policy: str,
    clip: float,
) -> Case:
    """Return the case as the log left it, or a new one if the champion is new or none can be read.

    Events count from the first that the champion did not foretell itself: those say nothing of the two.
    """
    wager = tenure = None
    if champion is not None:
        since = champion.index + 1
        wager = Wager(challenger=policy, incumbent=champion.sha, since=since, clip=clip)
        if predecessor is not None:
            since = max(champion.index, predecessor.index) + 1
            tenure = Wager(challenger=champion.sha, incumbent=predecessor.sha, since=since, clip=clip)
    fresh = Case(heard=heard(log), wager=wager, tenure=tenure)
    try:
        left = _left(log)
    except (ValueError, KeyError, TypeError) as unreadable:
        return replace(fresh, reopened=str(unreadable))
    if left is None or _parties(left.wager) != _parties(wager):
        return fresh
    return left if _parties(left.tenure) == _parties(tenure) else replace(left, tenure=tenure)


def hear(
    case: Case,
    window: int,
    pairs: Iterable[Paired],
    answers: Sequence[Answered],
    bounds: Bounds,
    shadow: Iterable[Paired] = (),
) -> Case:
    """Return the case with one window more; ValueError names an event that cannot be counted.

    `pairs` are of policy and champion, `shadow` of champion and predecessor.
    """
    wager, tenure = case.wager, case.tenure
    if wager is not None:
        wager = wagers.count_all(wager, pairs)
    if tenure is not None:
        tenure = wagers.count_all(tenure, shadow)
    showing = showings.shown(
        case.showing,
        answers,
        enough=bounds.min_labels,
        enough_of_a_class=bounds.min_labels_per_class,
    )
    return Case(heard=window, wager=wager, tenure=tenure, showing=showing)


def as_json(case: Case) -> dict[str, Any]:
    """Return the case as JSON values for the decision log."""
    return {
        "heard": case.heard,
        "wager": None if case.wager is None else wagers.dump(case.wager),
        "tenure": None if case.tenure is None else wagers.dump(case.tenure),
        "showing": showings.dump(case.showing),
    }


def _left(log: Sequence[Decision]) -> Case | None:
    """Return the case that the newest line of the gate holds, unless somebody was put in charge since."""
    for line in reversed(log):
        if line.action in IN_CHARGE:
            return None
        if CASE in line.evidence:
            return _read(line.evidence[CASE])
    return None


def _read(told: Mapping[str, Any]) -> Case:
    wager, tenure = (None if told[name] is None else wagers.load(told[name]) for name in ("wager", "tenure"))
    return Case(heard=int(told["heard"]), wager=wager, tenure=tenure, showing=showings.load(told["showing"]))


def _parties(wager: Wager | None) -> tuple[str, str, int, float] | None:
    """Return who bets against whom, from when on, and by which rules: all that makes two bets one game."""
    return None if wager is None else (wager.challenger, wager.incumbent, wager.since, wager.clip)
