"""Follow the champion, or its shadow: look, load what is new, have it take over; else the old one stays."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Final, Protocol, final

from posterior.registry import RegistryError
from posterior.snapshot import LedgerCorrupt, LedgerError
from priorflow.serving.champions import By, Wanted
from priorflow.serving.desk import Desk
from priorflow.serving.version import Version

_TAKES_S: Final = 60.0  # how long a version may take to be tried
_AGAIN_S: Final = 30.0  # how soon one that failed is tried again
_WITHHELD: Final = "every answer is withheld: a threshold for serve.risk is chosen by the ledger's rows"

Seconds = float


class Places(Protocol):
    """Where a champion is looked for, and how it is made ready."""

    def by_decision(self) -> Wanted | None:
        """Ask the decision log; LedgerError if it cannot be read."""
        ...

    def by_alias(self) -> Wanted | None:
        """Ask the registry; RegistryError if it cannot be reached."""
        ...

    def last_good(self) -> Wanted | None:
        """Look for the last version that answered here."""
        ...

    def ready(self, wanted: Wanted, posterior: bytes) -> Version:
        """Make it ready to answer."""
        ...

    def keep(self, wanted: Wanted, posterior: bytes, version: Version) -> None:
        """Keep it as the last good one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How well the champion is known: who named it, and what is wrong since when (None: all is well)."""

    by: By | None = None
    trouble: str | None = None
    since: Seconds = 0.0


def _nobody(standing: Standing) -> None:
    del standing


@final
class Watcher:
    """Looks every `poll_s` in a thread of its own; `tell` hears when the standing changes."""

    def __init__(
        self,
        desk: Desk,
        places: Places,
        *,
        poll_s: Seconds,
        tell: Callable[[Standing], None] = _nobody,
        now: Callable[[], Seconds] = time.time,
        who: str = "champion",
        absent: str = "no snapshot was promoted yet",
    ) -> None:
        self._desk, self._places, self._poll_s, self._tell, self._now = desk, places, poll_s, tell, now
        self._who, self._absent = who, absent
        self._standing = Standing(trouble="not looked yet", since=now())
        self._logged: Wanted | None = None  # whom the log named when it was last read
        self._failed: tuple[str, Seconds, str] | None = None  # sha, when to try again, why
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="watcher", daemon=True)

    @property
    def standing(self) -> Standing:
        """Return how well the champion is known."""
        return self._standing

    def start(self, *, look: bool = True) -> None:
        """Look once, unless told not to wait for that, then go on looking in the background."""
        if look:
            self._look()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_TAKES_S)

    def look(self) -> None:
        """Find the champion, and have it take over if it is another."""
        wanted, trouble = self._wanted()
        if wanted is None:
            self._stand(self._standing.by, trouble or self._absent)
            return
        present = self._desk.version
        if present is None or _another(present, wanted):
            failed = self._take(wanted)
            if failed is not None:
                self._stand(self._standing.by, failed)
                return
        self._stand(wanted.by, trouble)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            self._look()

    def _look(self) -> None:
        try:
            self.look()
        except Exception as failed:  # noqa: BLE001 - a server that no longer follows must say so, and go on
            self._stand(self._standing.by, f"the {self._who} cannot be looked up: {failed!r}")

    def _wanted(self) -> tuple[Wanted | None, str | None]:
        """Return who should answer, and what was wrong on the way to know it.

        Whom the log named stays wanted while it cannot be read: an alias may lag behind it.
        """
        trouble = None
        try:
            found = self._logged = self._places.by_decision()
        except LedgerError as failed:
            trouble = f"the decision log cannot be read: {failed}"
            found = None if self._logged is None else replace(self._logged, history=None)
        if found is None:
            try:
                found = self._places.by_alias()
            except RegistryError as failed:
                trouble = trouble or f"{self._absent}, and the registry cannot be read: {failed}"
        if found is None and self._desk.version is None:
            try:
                found = self._places.last_good()
            except LedgerCorrupt as altered:
                trouble = f"{trouble or 'no champion'}; and the one kept here was altered: {altered}"
        return found, trouble

    def _take(self, wanted: Wanted) -> str | None:
        """Load a version and have it take over; return why that failed."""
        sha, now = wanted.snapshot.sha, self._now()
        if self._failed is not None and self._failed[0] == sha and now < self._failed[1]:
            return self._failed[2]
        try:
            posterior = wanted.posterior()
            _verified(wanted, posterior)
            version = self._places.ready(wanted, posterior)
            self._desk.offer(version).result(_TAKES_S)
        except Exception as failed:  # noqa: BLE001 - whatever it is, the last good version goes on
            why = f"snapshot {sha[:12]} cannot take over, the last good version stays: {failed}"
            self._failed = (sha, now + _AGAIN_S, why)
            return why
        self._failed = None
        try:
            self._places.keep(wanted, posterior, version)
        except OSError as full:
            return f"snapshot {sha[:12]} answers, but cannot be kept for an outage: {full}"
        return None

    def _stand(self, by: By | None, trouble: str | None) -> None:
        before, version = self._standing, self._desk.version
        if version is not None and version.provisional:
            trouble = _WITHHELD if trouble is None else f"{trouble}; {_WITHHELD}"
        if (by, trouble) == (before.by, before.trouble):
            return
        since = before.since if (trouble is None) == (before.trouble is None) else self._now()
        self._standing = replace(before, by=by, trouble=trouble, since=since)
        with suppress(Exception):  # who listens may have gone; that is no reason to stop looking
            self._tell(self._standing)


def _another(present: Version, wanted: Wanted) -> bool:
    """Tell whether somebody else is wanted, or the same under a rule that can be chosen only now."""
    settles = wanted.history is not None and not present.settled
    return settles or (present.snapshot.sha, present.name) != (wanted.snapshot.sha, wanted.name)


def _verified(wanted: Wanted, posterior: bytes) -> None:
    found = hashlib.sha256(posterior).hexdigest()
    if found != wanted.snapshot.posterior:
        msg = f"its posterior has sha256 {found}, not {wanted.snapshot.posterior}"
        raise LedgerCorrupt(msg)
