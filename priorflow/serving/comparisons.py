"""What came of a shadow, kept in a file: a line for each event that was compared, by its prediction id.

No text is in it. A file that has its most bytes becomes the one before, and the one before that goes. Servers
that share a home share the file; each line is written whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, final

from priorflow.serving.comparing import Beside, Heard
from stream.prediction_id import event_of, prediction_id

NAME: Final = "shadow.jsonl"
BEFORE: Final = "shadow.before.jsonl"


@final
class Comparisons:
    """The file in a folder."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes

    def add(self, beside: Beside) -> None:
        """Write an event down; OSError if that cannot be."""
        line = json.dumps(row(beside), ensure_ascii=False, allow_nan=False) + "\n"
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / NAME
        if file.is_file() and file.stat().st_size + len(line.encode()) > self._most:
            file.replace(self._folder / BEFORE)
        # One write of an appending descriptor: lines of several processes do not run into each other.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def forget(folder: Path, events: Collection[str], write: Callable[[Path, bytes], None] | None) -> int:
    """Take the lines of these events out of a folder's files, and what cannot be read; return how many.

    A line that a server writes just then may be lost: it is a sample. None for `write` only looks.
    """
    count = 0
    for file in (folder / NAME, folder / BEFORE):
        # As bytes: a torn line may end inside a letter, and text has more ends of lines than we write.
        lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
        stay = [line for line in lines if _event(line) not in {None, *events}]
        count += len(lines) - len(stay)
        if write is not None and len(stay) < len(lines):
            write(file, b"".join(stay))
    for stray in folder.glob("shadow*.tmp") if write is not None else ():  # left by one that was killed here
        stray.unlink()
    return count


def _event(line: bytes) -> str | None:
    try:
        return event_of(json.loads(line)["prediction_id"])
    except (ValueError, KeyError, TypeError):
        return None


def row(beside: Beside) -> dict[str, Any]:
    """Return a comparison as JSON values; `prediction_id` is the champion's, as whoever asked was told."""
    found = beside.difference
    return {
        "prediction_id": prediction_id(beside.event_id, beside.champion.version.snapshot.sha),
        "at_ms": beside.at_ms,
        "champion": _said(beside.champion),
        "shadow": _said(beside.shadow),
        "agrees": found.agrees,
        "delta_p": found.delta_p,
        "kl_nats": found.kl,
    }


def _said(heard: Heard) -> dict[str, Any]:
    answer = heard.answer
    return {
        "snapshot": heard.version.snapshot.sha,
        "label": answer.label,
        "p": answer.confidence,
        "abstain": heard.withheld,
        "seconds": round(heard.seconds, 6),
    }
