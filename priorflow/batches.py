"""What `score` takes at once: each text answered by itself, or refused for what the model made of it.

A text that the model cannot answer is one dead letter, and its neighbours are answered. How many records are
taken goes by how long a text has taken, so that a batch is done long before its partitions would be given to
another member; should one take too long all the same, it is put back, and half as many are taken.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from typing import Final, final

from posterior.family import ONE_TASK
from priorflow.serving.desk import Asked, Desk, Told
from stream.record import Event, Record, Refusal, Stage

STAGE: Final[Stage] = "model"  # what refuses a text that could be read


class TooSlow(Exception):
    """A batch was not answered in its time; it is to be put back."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many records to take at once, so that they are answered `within_s`; at most `most`.

    It begins with one, for nothing is known yet of how long a text takes, and at most doubles.
    """

    most: int
    within_s: float
    at_once: int = 1

    def after(self, texts: int, seconds: float) -> Pace:
        """Return the pace after so many texts took so long."""
        if not texts:
            return self
        fits = self.most if seconds <= 0 else int(self.within_s * texts / seconds)
        return replace(self, at_once=max(1, min(self.most, 2 * self.at_once, fits)))

    def halved(self) -> Pace:
        """Return the pace after a batch that was put back."""
        return replace(self, at_once=max(1, self.at_once // 2))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record, and what came of it: an answer, why there is none, or nothing where none was asked for."""

    record: Record
    said: Told | Refusal | None


def asked_of(event: Event) -> Asked:
    """Return what the model is asked about an event."""
    return event.text, event.task or ONE_TASK


def outcomes(records: Sequence[Record], desk: Desk, *, within_s: float) -> Iterator[Outcome]:
    """Yield what comes of each record; equal texts are asked once. TooSlow if they take longer in all.

    Of a batch of one text it is the text that is too slow: it is refused, or it would come for ever.
    """
    end, known = time.monotonic() + within_s, dict[Asked, Told | Refusal]()
    for record in records:
        body = record.body
        if not isinstance(body, Event):
            yield Outcome(record, body if isinstance(body, Refusal) else None)
            continue
        asked = asked_of(body)
        if asked not in known:
            known[asked] = _said(desk, asked, end - time.monotonic(), alone=len(records) == 1)
        yield Outcome(record, known[asked])


def _said(desk: Desk, asked: Asked, within_s: float, *, alone: bool) -> Told | Refusal:
    told = desk.ask([asked])
    # Looked at once: an answer that comes as its time ends is an answer, or late; never the model's fault.
    done, _ = wait([told], max(0.0, within_s))
    if not done:
        told.cancel()
        if alone:
            return Refusal(STAGE, f"no answer within {within_s:.0f} s")
        raise TooSlow
    failed = told.exception()
    if failed is None:
        return told.result()
    return Refusal(
        STAGE, "; ".join([f"{type(failed).__name__}: {failed}", *getattr(failed, "__notes__", ())])
    )
