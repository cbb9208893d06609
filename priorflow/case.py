"""The case between the policy and the champion, and that of the champion against its predecessor's shadow.

Evidence so far is kept in the decision log itself.

Each line that the gate writes holds the whole of it, so that evidence survives every restart, and the log
alone says what has been counted. A line that puts somebody in charge ends a case; the next window opens
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from posterior.snapshot import IN_CHARGE, Decision, Snapshot
from trainers import showing as showings
from trainers import wager as wagers
from trainers.bounds import Bounds
from trainers.showing import Answered, Showing
from trainers.wager import Paired, Wager

CASE: Final = "case"  # where a line of the gate keeps it

Since = Callable[..., int]
"""How many windows were closed when the first events came of which none of these snapshots had heard."""


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
    since: Since,
    turned: bool = False,
) -> Case:
    """Return the case as the log left it, or a new one if the champion is new or none can be read.

    Events count from the first that the champion did not foretell itself: those say nothing of the two.
    `turned`: learning goes on from elsewhere since, so what was counted may come again.
    """
    reopened = left = None
    try:
        left = None if turned else _left(log)
    except (ValueError, KeyError, TypeError) as unreadable:
        reopened = str(unreadable)
    wager = tenure = None
    if champion is not None:
        wager = _bet(None if left is None else left.wager, policy, champion, since, clip)
        left = left if left is not None and left.wager is wager else None
        if predecessor is not None:
            both = partial(since, champion)
            tenure = _bet(None if left is None else left.tenure, champion.sha, predecessor, both, clip)
    if left is None:
        return Case(heard=heard(log), wager=wager, tenure=tenure, reopened=reopened)
    return replace(left, wager=wager, tenure=tenure)


def _bet(left: Wager | None, challenger: str, incumbent: Snapshot, since: Since, clip: float) -> Wager:
    """Return the wager that was left if the parties and the clip are the same, or a new one."""
    if left is not None and (left.challenger, left.incumbent, left.clip) == (challenger, incumbent.sha, clip):
        return left
    return Wager(challenger=challenger, incumbent=incumbent.sha, since=since(incumbent), clip=clip)


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
