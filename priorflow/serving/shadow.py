"""A shadow: another version is asked what the champion has answered, after it did, and answers nobody.

    answer given ──> chosen by its id? ──> bounded line ──> a process of its own ──> compared ──> listeners
                                            └── full: dropped, and counted

Nothing here raises into, waits for or shares a model with whoever answers. The line, and the way a version
takes over in it, are the champion's own (`Desk`, `Watcher`); only who is asked lives elsewhere (`Apart`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final, final

from priorflow.config import Settings
from priorflow.console import Console
from priorflow.learning import model_spec
from priorflow.serving.apart import Apart
from priorflow.serving.books import Books
from priorflow.serving.champions import Wanted, by_decision
from priorflow.serving.comparing import Beside, Heard, Sums, chosen, counted, difference
from priorflow.serving.desk import Asked, Desk, Full, NobodyInCharge, Told
from priorflow.serving.version import Version, answer_spec, rule_of
from priorflow.serving.watcher import Standing, Watcher

_PATIENCE_S: Final = float("inf")  # the line is bounded by its length alone

Listener = Callable[[Beside], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """How a shadow does: its pair so far, what was not compared, who is asked and what is wrong."""

    sums: Sums
    dropped: int
    failed: int
    waiting: int
    snapshot: str | None
    trouble: str | None


@final
class Shadow:
    """The line to the shadow; `see` may be called from any thread, listeners hear in the line's own."""

    def __init__(self, desk: Desk, *, share: float, listeners: Sequence[Listener] = ()) -> None:
        self._desk, self._share, self._listeners = desk, share, listeners
        self._sums, self._dropped, self._failed = Sums(), 0, 0
        self._counting = Lock()
        self._fault: str | None = None
        self.trouble: str | None = None  # why it cannot be looked up

    def see(self, event_id: str, asked: Asked, champion: Heard, *, at_ms: int) -> None:
        """Have an event that was answered compared too, if it is chosen and there is room."""
        version = self._desk.version
        if version is None or _same(version, champion.version) or not chosen(event_id, self._share):
            return
        try:
            self._desk.ask([asked], heard=partial(self._heard, event_id, at_ms, champion))
        except Full:
            with self._counting:
                self._dropped += 1
        except NobodyInCharge:
            pass  # it stops

    @property
    def standing(self) -> Stood:
        """Return how it does."""
        version = self._desk.version
        with self._counting:
            return Stood(
                sums=self._sums,
                dropped=self._dropped,
                failed=self._failed,
                waiting=self._desk.waiting,
                snapshot=None if version is None else version.snapshot.sha,
                trouble=self.trouble or self._fault,
            )

    def _heard(self, event_id: str, at_ms: int, champion: Heard, done: Future[Told]) -> None:
        try:
            told = done.result()
            if not _same(told.version, champion.version):  # it may have been promoted meanwhile
                self._compared(event_id, at_ms, champion, told)
        except Exception as failed:  # noqa: BLE001 - whatever it is, it is the shadow's, and counted
            with self._counting:
                self._failed += 1
                self._fault = f"event {event_id!r} was not compared: {failed}"

    def _compared(self, event_id: str, at_ms: int, champion: Heard, told: Told) -> None:
        shadow = Heard(version=told.version, answer=told.answers[0], seconds=told.seconds)
        beside = Beside(
            event_id=event_id,
            at_ms=at_ms,
            champion=champion,
            shadow=shadow,
            difference=difference(champion.answer, shadow.answer),
        )
        for listener in self._listeners:
            listener(beside)
        with self._counting:
            self._sums, self._fault = counted(self._sums, beside), None


@final
class Candidates:
    """Whom the settings want as shadow: the gates' newest candidate, else the alias; or one version."""

    def __init__(self, settings: Settings, apart: Apart) -> None:
        self._settings, self._apart, self._books = settings, apart, Books(settings)
        self._named: Wanted | None = None

    def by_decision(self) -> Wanted | None:
        """Ask the decision log whom the gates judged last."""
        if self._settings.serve.shadow != "candidate":
            return None
        ledger, log = self._books.ledger()
        return by_decision(ledger, self._books.blobs, self._settings.chain.name, log.candidate())

    def by_alias(self) -> Wanted | None:
        """Ask the registry."""
        shadow = self._settings.serve.shadow
        if not isinstance(shadow, int):
            return self._books.with_history(self._books.by_alias("candidate"))
        self._named = self._named or self._books.by_version(shadow)
        return self._books.with_history(self._named)

    def last_good(self) -> Wanted | None:
        """Look nowhere: a shadow that cannot be looked up is done without."""
        return None

    def ready(self, wanted: Wanted, posterior: bytes) -> Version:
        """Load it in the other process."""
        snapshot = wanted.snapshot
        self._books.require_ours(snapshot)
        answerer = self._apart.load(snapshot, posterior)
        rows = wanted.history() if wanted.history else ()
        return Version(
            snapshot=snapshot,
            answerer=answerer,
            rule=rule_of(self._settings, rows, snapshot),
            name=wanted.name,
            settled=wanted.history is not None,
        )

    def keep(self, wanted: Wanted, posterior: bytes, version: Version) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Let go of the ledger."""
        self._books.close()


@contextmanager
def shadowing(
    settings: Settings, console: Console, *listeners: Listener, grace_s: float
) -> Iterator[Shadow | None]:
    """Ask the shadow beside the champion while the context is open; None where the settings want none.

    It takes its time to load, and nobody waits for it. What is in its line at the end has `grace_s`.
    """
    serve = settings.serve
    if serve.shadow is None:
        yield None
        return
    apart = Apart(model_spec(settings), answer_spec(settings), threads=settings.learn.threads)
    places = Candidates(settings, apart)
    desk = Desk(most=serve.shadow_waiting, patience_s=_PATIENCE_S)
    shadow = Shadow(desk, share=serve.shadow_share, listeners=listeners)
    watcher = Watcher(
        desk,
        places,
        poll_s=serve.poll / 1000,
        tell=lambda standing: _tell(console, standing, desk, shadow),
        who="shadow",
        absent="there is no candidate yet" if serve.shadow == "candidate" else f"no version {serve.shadow}",
    )
    desk.start()
    watcher.start(look=False)
    try:
        yield shadow
    finally:
        desk.stop(grace_s)
        apart.close()
        watcher.stop()
        desk.stop()
        places.close()
        _sum_up(console, shadow.standing)


def told(stood: Stood) -> str:
    """Say how a pair compared, in a line."""
    lost, sums, n = f"{stood.dropped:,} dropped, {stood.failed:,} failed", stood.sums, stood.sums.events
    if not n:
        return f"nothing compared yet; {lost}"
    return (
        f"{sums.agreed / n:.1%} of {n:,} answers agree with {sums.shadow[:12]}, "
        f"|Δp| {sums.delta_p / n:.3f}, KL {sums.kl / n:.3f} nats; {lost}"
    )


def tile(stood: Stood) -> tuple[str, str, str]:
    """Return a tile of the page: name, value and a note."""
    n = stood.sums.events
    agree = f"{stood.sums.agreed / n:.1%} agree" if n else "waits"
    return "Shadow", agree, told(stood) + (f"; {stood.trouble}" if stood.trouble else "")


def _same(one: Version, other: Version) -> bool:
    return one.snapshot.sha == other.snapshot.sha


def _tell(console: Console, standing: Standing, desk: Desk, shadow: Shadow) -> None:
    shadow.trouble = standing.trouble
    version = desk.version
    sha = None if version is None else version.snapshot.sha
    if standing.trouble is not None:
        console.warn(f"shadow: {standing.trouble}", event="shadow", snapshot=sha, trouble=standing.trouble)
    elif sha is not None:
        console.say(f"{sha[:12]} is asked beside, by the {standing.by}", event="shadow", snapshot=sha)


def _sum_up(console: Console, stood: Stood) -> None:
    sums = stood.sums
    facts = {"events": sums.events, "agreed": sums.agreed, "dropped": stood.dropped, "failed": stood.failed}
    console.say(f"shadow: {told(stood)}", event="shadow", snapshot=stood.snapshot, **facts)
