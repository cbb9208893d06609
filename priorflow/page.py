"""The page at `/`: where a chain stands, from the ledger alone; no outside resource.

There is no script either, but where a key lets somebody decide: then one that sends what they decided.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, final

from posterior.snapshot import LedgerError
from priorflow import descent_words
from priorflow import report_curves as curves
from priorflow import report_words as words
from priorflow.config import Settings
from priorflow.kinship import SET_IN
from priorflow.look import Look, look
from priorflow.masking import without_passwords
from priorflow.quantities import format_instant
from priorflow.report import pages
from priorflow.story import Story

Tile = tuple[str, str, str]  # name, value and a note


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
        ways=() if found is None else found.lineage,
        derived=() if found is None else found.derived,
        set_in=SET_IN,
        windows={} if found is None else found.windows,
        marks={} if found is None else marks(found, answering),
        rows=descent_words,
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
        ("Beta", f"{last.beta:g}" if last else words.NONE, "kept of the belief before; 1 forgets nothing"),
        (
            "Lag",
            f"{sum(lags):,}" if lags else "unknown",
            "records not read yet" if lags else "Kafka cannot be asked",
        ),
        ("Pending", f"{counts['pending']:,}", "records that wait for their other half"),
        ("Dead letters", f"{counts['dead_lettered']:,}", "set aside whole, not lost"),
        ("To publish", f"{waiting:,}", place["publish_error"] or "versions in the outbox"),
    ]


def marks(found: Look, answering: str | None) -> Mapping[str, Sequence[str]]:
    """Return what a snapshot of the lineage is to whoever looks, by sha."""
    named = [
        (found.place["head"], "head"),
        (found.place["champion"], "champion"),
        (answering, "answers here"),
        (found.candidate, "candidate"),
        (found.back, "a rollback goes here"),
    ]
    said: dict[str, list[str]] = {}
    for sha, mark in named:
        if sha is not None:
            said.setdefault(sha, []).append(mark)
    return said


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
