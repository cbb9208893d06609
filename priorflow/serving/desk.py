"""One line to the model: requests wait their turn, and a new version takes over between two of them.

The model is asked by one thread. A request is answered whole by the version that is in charge when its turn
comes, so no request is mixed and none is dropped by a change. A version takes over only after it has answered
a text here; one that cannot leaves the old one in charge. Equal texts of a request are asked once. Nothing
is gained by waiting for company, for texts go through the model one by one (see `trainers.answer`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final, final

from priorflow.serving.version import Version
from trainers.answer import Answer

_TRIAL: Final = "a text to see that this version answers"
_SMOOTHING: Final = 0.05  # weight of the newest text in the mean time a text takes

Asked = tuple[str, str]  # text and task


class Full(Exception):
    """Too many wait; `after_s` is how long the line is now."""

    def __init__(self, waiting: int, after_s: float) -> None:
        super().__init__(f"{waiting} texts wait already; try again in {after_s:.1f} s")
        self.after_s = after_s


class NobodyInCharge(Exception):
    """There is no version to answer yet, or no longer."""


@dataclass(frozen=True, slots=True)
class Told:
    """One request's answers, in its order, the version that gave all of them, and how long that took."""

    version: Version
    answers: tuple[Answer, ...]
    seconds: float


@final
class Desk:
    """The line and its thread.

    At most `most` texts wait, and as far as one can tell none longer than `patience_s`.
    """

    def __init__(self, *, most: int, patience_s: float) -> None:
        self._most, self._patience_s = most, patience_s
        self._requests: deque[tuple[Sequence[Asked], Future[Told]]] = deque()
        self._offers: deque[tuple[Version, Future[None]]] = deque()
        self._waiting = 0  # texts
        self._text_s = 0.0
        self._version: Version | None = None
        self._stopping = False
        self._changed = Condition()
        self._thread = Thread(target=self._serve, name="desk", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def version(self) -> Version | None:
        """Who is in charge."""
        return self._version

    @property
    def waiting(self) -> int:
        """How many texts wait or are being answered."""
        return self._waiting

    def alive(self) -> bool:
        """Tell whether the thread still serves."""
        return self._thread.is_alive()

    def ask(
        self, texts: Sequence[Asked], *, heard: Callable[[Future[Told]], None] | None = None
    ) -> Future[Told]:
        """Put a request in line; Full if that would be too long, NobodyInCharge before the first version.

        `heard` is called with what came of it, in the line's own thread, however soon that is.
        """
        with self._changed:
            if self._version is None or self._stopping:
                raise NobodyInCharge
            wait_s = self._waiting * self._text_s
            if self._waiting + len(texts) > self._most or wait_s > self._patience_s:
                raise Full(self._waiting, wait_s)
            told: Future[Told] = Future()
            if heard is not None:  # before anybody can answer, or it would be called by whoever asks
                told.add_done_callback(heard)
            self._waiting += len(texts)
            self._requests.append((texts, told))
            self._changed.notify_all()
        return told

    def offer(self, version: Version) -> Future[None]:
        """Have a version take over before the next request; the future holds why it did not."""
        taken: Future[None] = Future()
        with self._changed:
            if self._stopping:  # nobody would come to take it
                taken.set_exception(NobodyInCharge())
                return taken
            self._offers.append((version, taken))
            self._changed.notify_all()
        return taken

    def stop(self, timeout_s: float = 10.0) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._offers or self._requests or self._stopping)
                if not self._offers and not self._requests:
                    return
            if self._offers:
                self._take(*self._offers.popleft())
            else:
                self._answer(*self._requests.popleft())

    def _take(self, version: Version, taken: Future[None]) -> None:
        try:
            version.answerer.answer(_TRIAL)
        except Exception as failed:  # noqa: BLE001 - whatever it is, the old version stays and somebody is told
            taken.set_exception(failed)
            return
        self._version = version
        taken.set_result(None)

    def _answer(self, texts: Sequence[Asked], told: Future[Told]) -> None:
        version = self._version
        assert version is not None, "nothing is put in line before there is a version"
        try:
            if told.set_running_or_notify_cancel():  # else whoever asked has gone
                begun = time.perf_counter()
                answers = self._answers(version, texts)
                told.set_result(Told(version, answers, time.perf_counter() - begun))
        except Exception as failed:  # noqa: BLE001 - the one who asked is told; the line goes on
            failed.add_note(f"asked of snapshot {version.snapshot.sha}")
            told.set_exception(failed)
        finally:
            with self._changed:
                self._waiting -= len(texts)

    def _answers(self, version: Version, texts: Sequence[Asked]) -> tuple[Answer, ...]:
        known: dict[Asked, Answer] = {}
        for asked in texts:
            if asked not in known:
                begun = time.perf_counter()
                known[asked] = version.answerer.answer(*asked)
                spent = time.perf_counter() - begun
                share = _SMOOTHING if self._text_s else 1.0
                self._text_s += share * (spent - self._text_s)
        return tuple(known[asked] for asked in texts)
