"""The page at `/`: where a chain stands, from the ledger alone; no outside resource.

There is no script either, but where a key lets somebody decide: then one that sends what they decided.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, final

from connectors.decision_log import champion, fallback
from posterior.calibration import ReliabilityBin
from posterior.snapshot import Decision, LedgerError, Snapshot
from priorflow import report_curves as curves
from priorflow import report_words as words
from priorflow.case import newest_candidate
from priorflow.cluster import ends_if_reachable
from priorflow.config import Settings
from priorflow.deciding import GATES
from priorflow.masking import without_passwords
from priorflow.opening import MLFLOW, reading
from priorflow.quantities import format_instant
from priorflow.report import pages
from priorflow.status import standing
from priorflow.story import MethodRow, Story, WindowRow
from priorflow.story_ledger import scores, verdicts, window_rows
from trainers.abstention import CONFIDENCES, STEPS
from trainers.branching import AGAIN, OF, SKIPPED
from trainers.line import in_force

SHOWN: Final = 200  # windows in the figures
LISTED: Final = 25  # windows in the table, and decisions
_OURS: Final = "priorflow"
_BINS: Final = 20
_NONE: Final = MethodRow(
    prequential_accuracy=None,
    prequential_nll=None,
    prequential_ece=None,
    prequential_ece_by_window=None,
    final_accuracy=None,
    forgetting=None,
)


Tile = tuple[str, str, str]  # name, value and a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A row from which learning went on with an older belief: whose, what it does without or reads again."""

    sha: str
    parent: str
    tensors_of: str
    skipped: tuple[int, ...] = ()
    again: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was read of a chain at once: `place` as `priorflow status` has it, and its story.

    `gates` are what the gates said of each of the story's decisions, `lineage` windows and turns in force,
    oldest first; `candidate` is what a promotion would be about, `back` where a rollback would go.
    """

    place: Mapping[str, Any]
    story: Story | None
    gates: tuple[Sequence[Mapping[str, Any]], ...] = ()
    lineage: tuple[WindowRow | Turn, ...] = ()
    candidate: str | None = None
    back: str | None = None


def look(settings: Settings, *, ask_kafka: bool = True) -> Look | None:
    """Read the ledger; None where the chain has no snapshot yet, LedgerError where there is no ledger."""
    ends = ends_if_reachable(settings) if ask_kafka else None
    with reading(settings, read_only=True) as (ledger, _):
        name = settings.chain.name
        history = ledger.history(name) if ledger.chain(name) is not None else ()
        if not history:
            return None

        def version_of(sha: str) -> int | None:
            number = ledger.reference(sha, MLFLOW)
            return None if number is None else int(number)

        told = settings.decisions.webhook is not None
        place = standing(ledger, name, history, ends, webhook=told)
        line = in_force(history, history[-1])
        shown = _newest(line)
        log = ledger.decisions(name)
        decided = verdicts(log[-LISTED:], history, version_of)
        rows = window_rows(shown, version_of)
    if not rows:
        return Look(place=place, story=None)
    story = Story(
        chain=name,
        head_sha=history[-1].sha,
        seconds=0.0,
        windows=rows,
        ours=_OURS,
        methods={_OURS: _NONE},
        curves={_OURS: scores(shown)},
        reliability={_OURS: reliability(shown)},
        matrix=(),
        pi_new=settings.learn.pi_new,
        replay_verified=False,
        dead_letters=history[-1].counts["dead_lettered"],
        counts=history[-1].counts,
        promoted_version=None,
        decisions=decided,
        tracking_uri=settings.tracking_uri,
        registered_model=settings.mlflow.registered_model,
        ledger_url=settings.ledger_url,
    )
    return Look(
        place=place,
        story=story,
        gates=tuple(line.evidence.get(GATES, ()) for line in log[-LISTED:]),
        lineage=lineage(line, rows)[-LISTED:],
        candidate=_candidate(log),
        back=fallback(log),
    )


def lineage(history: Sequence[Snapshot], rows: Sequence[WindowRow]) -> tuple[WindowRow | Turn, ...]:
    """Return windows, and where learning turned to an older belief, in the order of `history`."""
    known = {row.snapshot_sha: row for row in rows}
    told = (known.get(row.sha) or _turn(row) for row in history)
    return tuple(one for one in told if one is not None)


def _turn(row: Snapshot) -> Turn | None:
    if row.kind != "branch" or SKIPPED not in row.report:
        return None
    return Turn(
        sha=row.sha,
        parent=row.parent or "",
        tensors_of=row.report[OF],
        skipped=tuple(row.report[SKIPPED]),
        again=tuple(row.report.get(AGAIN, ())),
    )


def _candidate(log: Sequence[Decision]) -> str | None:
    """Return what the gates judged last, if it is not in charge already."""
    sha = newest_candidate(log)
    return None if sha == champion(log) else sha


def reliability(windows: Sequence[Snapshot]) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram of these windows' forecasts, which reports count by hundredths."""
    count, right, said = Counter[int](), Counter[int](), Counter[int]()
    for row in (row for window in windows for row in window.report.get(CONFIDENCES, ())):
        at = min(row[0] * _BINS // STEPS, _BINS - 1)
        count[at] += row[1]
        right[at] += row[2]
        said[at] += row[1] * (2 * row[0] + 1)  # the middle of a hundredth, in halves of one
    return tuple(
        ReliabilityBin(at / _BINS, (at + 1) / _BINS, n, min(1.0, said[at] / n / (2 * STEPS)), right[at] / n)
        for at, n in sorted(count.items())
    )


def page_html(
    found: Look | None,
    *,
    answering: str | None,
    trouble: str | None,
    looked_ms: int,
    decides: bool = False,
    also: Sequence[Tile] = (),
) -> str:
    """Return the page; `answering` is the sha that answers here, `trouble` what is known to be wrong.

    `decides`: whether whoever has the key may promote and roll back from here. `also` are tiles of what the
    ledger does not know.
    """
    environment = pages()
    environment.filters |= {"moment": _moment}
    place: Mapping[str, Any] = (
        {"chain": "none", "head": "", "champion": None} if found is None else found.place
    )
    story = None if found is None else found.story
    return environment.get_template("page.html").render(
        title="Where it stands",
        place=place,
        story=story,
        words=words,
        tiles=[*([] if found is None else tiles(found, answering)), *also],
        troubles=troubles(found, trouble),
        figures={} if story is None else _figures(story),
        decisions=[] if story is None or found is None else _told(story, found)[::-1],
        lineage=() if found is None else found.lineage[::-1],
        script=script() if decides and story is not None else "",
        candidate=None if found is None else found.candidate,
        back=None if found is None else found.back,
        looked_ms=looked_ms,
    )


def script() -> str:
    """Return the page's script, as it stands between its tags."""
    return pages().get_template("page.js").render()


def content_policy(*, decides: bool) -> str:
    """Return what a browser may do with the page: nothing from elsewhere, no frame, no script but ours.

    The dialog is a form that is sent nowhere: the script speaks for it.
    """
    allowed = ["default-src 'none'", "style-src 'unsafe-inline'", "base-uri 'none'"]
    allowed += ["form-action 'none'", "frame-ancestors 'none'"]
    if decides:
        digest = base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
        allowed += [f"script-src 'sha256-{digest}'", "connect-src 'self'"]
    return "; ".join(allowed)


def page(
    settings: Settings,
    *,
    answering: str | None = None,
    trouble: str | None = None,
    decides: bool = False,
    also: Sequence[Tile] = (),
) -> str:
    """Look, and return the page; what cannot be read is told on it."""
    try:
        found = look(settings)
    except LedgerError as failed:
        found, trouble = None, f"{trouble}; {failed}" if trouble else str(failed)
    return page_html(
        found,
        answering=answering,
        trouble=trouble,
        looked_ms=time.time_ns() // 1_000_000,
        decides=decides,
        also=also,
    )


@final
class Kept:
    """The page as it was seconds ago: however many look, the ledger is asked once."""

    def __init__(
        self, settings: Settings, *, seconds: float = 5.0, also: Callable[[], Sequence[Tile]] = tuple
    ) -> None:
        self._settings, self._seconds, self._also = settings, seconds, also
        self._decides = settings.serve.key_to_decide() is not None
        self.headers: Final = {"Content-Security-Policy": content_policy(decides=self._decides)}
        self._lock = Lock()
        self._made: tuple[float, object, str] | None = None

    def page(self, *, answering: str | None = None, trouble: str | None = None) -> str:
        """Return the page, made anew where it is old or says another thing."""
        said = (answering, trouble)
        with self._lock:
            made = self._made
            if made is None or made[1] != said or time.monotonic() - made[0] > self._seconds:
                text = page(
                    self._settings,
                    answering=answering,
                    trouble=trouble,
                    decides=self._decides,
                    also=self._also(),
                )
                made = self._made = (time.monotonic(), said, text)
        return made[2]

    def forget(self) -> None:
        """Have the page made anew: something was decided."""
        with self._lock:
            self._made = None


def tiles(found: Look, answering: str | None) -> list[Tile]:
    """Return what to see first: name, value and a note of each."""
    place, counts = found.place, found.place["counts"]
    last = found.story.windows[-1] if found.story is not None else None
    lags = [row["lag"] for row in place["positions"] if row["lag"] is not None]
    waiting = place["waiting_to_publish"]
    return [
        ("Windows", f"{place['windows']:,}", f"last commit {_minute(place['committed'])}"),
        ("Champion", _short(place["champion"]), f"before it {_short(place['previous'])}"),
        *([("Answers here", _short(answering), "the snapshot behind /predict")] if answering else []),
        ("Foretold right", words.share(last.accuracy if last else None), "of the last window"),
        ("Surprise", words.figure(last.nll if last else None), "nats an event, last window"),
        (
            "Lag",
            f"{sum(lags):,}" if lags else "unknown",
            "records not read yet" if lags else "Kafka cannot be asked",
        ),
        ("Pending", f"{counts['pending']:,}", "records that wait for their other half"),
        ("Dead letters", f"{counts['dead_lettered']:,}", "set aside whole, not lost"),
        ("To publish", f"{waiting:,}", place["publish_error"] or "versions in the outbox"),
    ]


def troubles(found: Look | None, trouble: str | None) -> list[str]:
    """Return what somebody should look at now."""
    said = [without_passwords(trouble)] if trouble else []
    if found is None:
        return said or ["The chain has no snapshot yet; `priorflow run` makes the first."]
    if found.place["publish_error"]:
        said.append(f"MLflow takes no versions: {found.place['publish_error']}")
    if found.place["tell_error"]:
        said.append(f"{found.place['waiting_to_tell']} decisions wait: {found.place['tell_error']}")
    last = found.story.windows[-1] if found.story is not None else None
    if last is not None and last.drift:
        said.append(f"Window {last.index} drifted: {', '.join(last.alarms) or 'an alarm sounded'}.")
    if last is not None and last.kind == "quarantined":
        said.append(f"Window {last.index} could not be learned and was quarantined.")
    return said


def _newest(history: Sequence[Snapshot]) -> Sequence[Snapshot]:
    """Return the last windows."""
    return [row for row in history if row.kind in {"learned", "quarantined"}][-SHOWN:]


def _told(story: Story, found: Look) -> list[tuple[Any, Sequence[Mapping[str, Any]]]]:
    """Return decisions, each with what every gate said and by which numbers."""
    gates = found.gates or ((),) * len(story.decisions)
    return list(zip(story.decisions, gates, strict=True))


def _figures(story: Story) -> dict[str, str]:
    return {
        "accuracy": curves.curve_chart(story, curves.ACCURACY),
        "nll": curves.curve_chart(story, curves.NLL),
        "ece": curves.curve_chart(story, curves.ECE),
        "reliability": curves.reliability_chart(story) if story.reliability[story.ours] else "",
        "movement": curves.movement_chart(story),
        "accounting": curves.accounting_chart(story.counts),
    }


def _moment(ms: int) -> str:
    return format_instant(ms // 1000 * 1000)


def _minute(instant: str | None) -> str:
    return "unknown" if instant is None else f"{instant[:10]} {instant[11:16]} UTC"


def _short(sha: str | None) -> str:
    return "none" if sha is None else sha[:8]
