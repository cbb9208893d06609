"""Work that is done again and again beside the run, in a thread of its own, and never in its way.

What cannot be reached is tried again after a wait that doubles up to a bound. A round may be repeated, so
dying anywhere loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from typing import final


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to look when nothing calls (`idle_s`), and how long to wait after failures."""

    idle_s: float = 5.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0


def _nobody(error: str | None) -> None:
    del error


@final
class Rounds:
    """Call `work` for ever: it returns what is wrong (None: all is well), or raises one of `passing`.

    An error of `passing` is waited out; any other ends the thread, is told, and raised there. `tell` hears,
    in that thread, what went wrong when that changes, and None once all is well again.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], str | None],
        *,
        passing: tuple[type[Exception], ...],
        pace: Pace | None = None,
        tell: Callable[[str | None], None] = _nobody,
    ) -> None:
        self._name, self._work, self._passing = name, work, passing
        self._pace, self._tell = pace or Pace(), tell
        self._changed = Condition()
        self._asked = self._served = self._failures = 0
        self._hurried = self._stopping = self._ended = False
        self._error: str | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether the round in hand should end early."""
        return self._stopping

    @property
    def failures(self) -> int:
        """How many rounds failed since one went well."""
        return self._failures

    @property
    def error(self) -> str | None:
        """What went wrong last; None: all is well."""
        return self._error

    def start(self) -> None:
        """Begin, with what a predecessor left."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to do; returns at once."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Have a whole round begin now; False if `timeout_s` was not enough for one that went well."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._served >= wanted or self._ended, timeout_s)
            return self._served >= wanted

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after what it has in hand; False if it did not end in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._go_round()
        except Exception as failed:
            self._now_wrong(f"{self._name} died of a fault of its own: {failed!r}")
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _go_round(self) -> None:
        while not self._stopping:
            with self._changed:
                asked, self._hurried = self._asked, False
            try:
                wrong = self._work()
            except self._passing as failed:
                self._wait_after(failed)
            else:
                self._rest(asked, wrong)

    def _wait_after(self, failed: Exception) -> None:
        self._now_wrong(str(failed))
        with self._changed:
            self._failures += 1
            wait = self._pace.first_wait_s * 2 ** min(self._failures - 1, 30)
            self._changed.wait_for(
                lambda: self._stopping or self._hurried, min(wait, self._pace.longest_wait_s)
            )

    def _rest(self, asked: int, wrong: str | None) -> None:
        self._now_wrong(wrong)
        with self._changed:
            self._failures, self._served = 0, asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._asked > asked, self._pace.idle_s)

    def _now_wrong(self, error: str | None) -> None:
        with self._changed:
            before, self._error = self._error, error
        if error != before:
            self._tell(error)
