"""One line to the model: a text at a time, of the request that is due first; versions change between texts.

The model is asked by one thread. A request is due when it could have been answered had it been alone: when it
came, and the time its texts take. So one of many texts holds up neither those of few nor a change, and is
not put off for ever either. It is answered whole by the version that was in charge at its first text, so none
is mixed and none is dropped by a change; who comes later is answered by the new version meanwhile. A version
takes over only after it has answered a text here; one that cannot leaves the old one in charge. Equal texts
of a request are asked once. Nothing is gained by waiting for company, for texts go through the model one by
one (see `trainers.answer`).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
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
    """One request's answers, in its order, the version that gave all of them, and how long the model took."""

    version: Version
    answers: tuple[Answer, ...]
    seconds: float


@final
@dataclass(slots=True)
class _Request:
    """What was asked, and how far it is; `left` are the different texts without an answer yet."""

    texts: Sequence[Asked]
    told: Future[Told]
    left: deque[Asked]
    version: Version | None = None
    known: dict[Asked, Answer] = field(default_factory=dict)
    seconds: float = 0.0


@final
class Desk:
    """The line and its thread.

    At most `most` texts wait, and as far as one can tell none longer than `patience_s`.
    """

    def __init__(self, *, most: int, patience_s: float) -> None:
        self._most, self._patience_s = most, patience_s
        self._requests: list[tuple[float, int, _Request]] = []  # a heap; numbers part those due together
        self._number = itertools.count()
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
            request = _Request(texts, told, deque(dict.fromkeys(texts)))
            due = time.perf_counter() + len(request.left) * self._text_s
            heapq.heappush(self._requests, (due, next(self._number), request))
            self._changed.notify_all()
        return told

    def offer(self, version: Version) -> Future[None]:
        """Have a version take over before the next text; the future holds why it did not."""
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
                due = self._requests[0][-1] if self._requests else None
            if self._offers:
                self._take(*self._offers.popleft())
            elif due is not None:
                self._turn(due)

    def _take(self, version: Version, taken: Future[None]) -> None:
        begun = time.perf_counter()
        try:
            version.answerer.answer(_TRIAL)
        except Exception as failed:  # noqa: BLE001 - whatever it is, the old version stays and somebody is told
            taken.set_exception(failed)
            return
        self._text_s = self._text_s or time.perf_counter() - begun
        self._version = version
        taken.set_result(None)

    def _turn(self, request: _Request) -> None:
        """Answer a request's next text; after its last it leaves the line."""
        if request.version is None and not request.told.set_running_or_notify_cancel():
            return self._leaves(request)  # whoever asked has gone
        request.version = request.version or self._version
        assert request.version is not None, "nothing is put in line before there is a version"
        try:
            self._one_text(request.version, request)
        except Exception as failed:  # noqa: BLE001 - the one who asked is told; the line goes on
            failed.add_note(f"asked of snapshot {request.version.snapshot.sha}")
            self._leaves(request)
            return request.told.set_exception(failed)
        if request.left:
            return None
        self._leaves(request)
        answers = tuple(request.known[asked] for asked in request.texts)
        return request.told.set_result(Told(request.version, answers, request.seconds))

    def _one_text(self, version: Version, request: _Request) -> None:
        if not request.left:  # nothing was asked
            return
        asked, begun = request.left.popleft(), time.perf_counter()
        request.known[asked] = version.answerer.answer(*asked)
        spent = time.perf_counter() - begun
        request.seconds += spent
        self._text_s += _SMOOTHING * (spent - self._text_s)

    def _leaves(self, request: _Request) -> None:
        with self._changed:
            self._requests[:] = [one for one in self._requests if one[-1] is not request]
            heapq.heapify(self._requests)
            self._waiting -= len(request.texts)
