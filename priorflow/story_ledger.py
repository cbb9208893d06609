"""What the ledger says of a run, as a story tells it: windows and decisions, with versions by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from posterior.snapshot import Decision, Snapshot
from priorflow.scores import Score
from priorflow.story import Taught, Verdict, WindowRow
from trainers.line import BY_CLASS, BY_SITE, EFFECTIVE, MOVED

VersionOf = Callable[[str], int | None]
"""The registry's number of a snapshot sha; None while it is not published."""

_ALARMS: Final = {
    "adwin_error": "errors rose",
    "adwin_nll": "surprise rose",
    "hddmw_error": "early warning: errors",
}
_TELLING: Final[Mapping[str, str]] = {"refuse": "fail", "wait": "wait"}


def window_rows(history: Sequence[Snapshot], version_of: VersionOf) -> tuple[WindowRow, ...]:
    """Return the closed windows of a chain, in order; progress rows and the root tell no window."""
    rows, known = [], set[str]()
    for snapshot in history:
        if snapshot.kind in {"learned", "quarantined"}:
            fresh = tuple(label for label in snapshot.labels if label not in known)
            rows.append(_row(snapshot, fresh, version_of))
        known |= set(snapshot.labels)
    return tuple(rows)


def scores(history: Sequence[Snapshot]) -> Mapping[int, Score]:
    """Return how each window was foretold, by `Snapshot.index`; windows without forecasts are left out.

    So are windows of tokens, of which none is right or wrong.
    """
    return {
        s.index: Score(
            count=s.report["foretold"],
            accuracy=s.report["accuracy"],
            nll=s.report["nll"],
            ece=s.report["ece"],
            brier=s.report["brier"],
        )
        for s in history
        if s.kind in {"learned", "quarantined"} and s.report["accuracy"] is not None
    }


def verdicts(
    decisions: Sequence[Decision], history: Sequence[Snapshot], version_of: VersionOf
) -> tuple[Verdict, ...]:
    """Return the decision log with its reasons in words; a candidate outside the chain has no window."""
    windows = {s.sha: s.index for s in history}
    return tuple(
        Verdict(
            action=line.action,
            snapshot_sha=line.snapshot,
            window=windows.get(line.snapshot),
            mlflow_version=version_of(line.snapshot),
            actor=line.actor,
            at_ms=line.at_ms,
            reasons=reasons(line),
        )
        for line in decisions
    )


def reasons(line: Decision) -> tuple[str, ...]:
    """Say why: of a refusal what failed, of a wait what it waits for, of a promotion all that was seen."""
    wanted = _TELLING.get(line.action, "")
    found: Sequence[Mapping[str, Any]] = line.evidence.get("gates", ())
    said = [str(one["line"]) for one in found if not wanted or one["verdict"] == wanted]
    unheard = line.evidence.get("unheard", ())
    if unheard:
        said.append(f"nothing was counted of window {', '.join(map(str, unheard))}")
    if "reopened" in line.evidence:
        said.append(f"counting began anew: {line.evidence['reopened']}")
    return (*said, *filter(None, [line.evidence.get("reason")]))


def _row(snapshot: Snapshot, fresh: tuple[str, ...], version_of: VersionOf) -> WindowRow:
    report = snapshot.report
    return WindowRow(
        index=snapshot.index,
        mails=report["members"],
        accuracy=report["accuracy"],
        nll=report["nll"],
        ece=report["ece"],
        kl_nats=report["kl_nats"],
        beta=report["beta"],
        drift=report["drift"],
        snapshot_sha=snapshot.sha,
        mlflow_version=version_of(snapshot.sha),
        parent=snapshot.parent or "",
        spans=snapshot.spans,
        end_ms=report["end_ms"],
        classes=report["classes"],
        new_classes=fresh,
        counts=snapshot.counts,
        kind="learned" if snapshot.kind == "learned" else "quarantined",
        alarms=tuple(_alarms(report["alarms"])),
        taught=_taught(report),
    )


def _taught(report: Mapping[str, Any]) -> Taught | None:
    """Return what a window taught; None if it was not learned, or by a release that did not say."""
    if BY_SITE not in report:
        return None
    return Taught(
        by_site=report[BY_SITE],
        worth=report[EFFECTIVE],
        by_class={
            label: (count, before, after) for label, (count, before, after) in report[BY_CLASS].items()
        },
        moved=tuple((place, before, after) for place, before, after in report[MOVED]),
    )


def _alarms(sounded: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Name each detector once, however often it sounded in a window."""
    for name in dict.fromkeys(name for name, _ in sounded):
        yield _ALARMS.get(name, name)
