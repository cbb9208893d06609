"""Dead letters as operators see and name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from connectors.dead_letters import NoSuchLetter
from connectors.letters import Letter
from priorflow.quantities import format_instant
from stream.record import Position, RawRecord

_POSITION: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")


def parse_position(text: str) -> Position:
    """Read a position as it is written, topic[partition]@offset; NoSuchLetter if it is none."""
    match = _POSITION.fullmatch(text)
    if match is None:
        msg = f"{text!r} is no position; write topic[partition]@offset, such as mails[2]@81231"
        raise NoSuchLetter(msg)
    return Position(match["topic"], int(match["partition"]), int(match["offset"]))


def picked(letters: Sequence[Letter], *, stage: str | None) -> list[Letter]:
    """Return the letters that were refused at this stage, or all."""
    return [letter for letter in letters if stage is None or letter.stage == stage]


def row(letter: Letter) -> dict[str, Any]:
    """Return one line of a listing."""
    return {
        "position": str(letter.position),
        "stage": letter.stage,
        "reason": letter.reason,
        "bytes": letter.size,
        "time": None if letter.timestamp_ms < 0 else format_instant(letter.timestamp_ms),
        "requeued": letter.requeued,
    }


def portrait(letter: Letter, record: RawRecord) -> dict[str, Any]:
    """Return everything about a letter; bytes that are not UTF-8 are shown escaped."""
    return {
        **row(letter),
        "filed": str(letter.filed),
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        "value": _text(record.value),
    }


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")
