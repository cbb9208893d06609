"""What came of a shadow, kept in a file: a line for each event that was compared, by its prediction id.

No text is in it. A file that has its most bytes becomes the one before, and the one before that goes. Servers
that share a home share the file; each line is written whole.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, final

from priorflow.serving.comparing import Beside, Heard
from stream.prediction_id import prediction_id

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
