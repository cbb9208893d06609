"""Durations, instants and addresses as operators write them; milliseconds and plain text inside.

A duration needs its unit (`7d`, `90s`, `1h30m`): a bare number is refused, because nobody remembers
whether it meant seconds or milliseconds. An instant is a date or a date with time, UTC unless it
says otherwise. An address may hold a password, so it is a secret that is printed without it.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from priorflow.masking import without_password

_UNITS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_PART: Final = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)"
_WHOLE: Final = re.compile(rf"\s*(?:{_PART}\s*)+")
_SHOWN: Final = ("d", "h", "m", "s", "ms")  # weeks are read but never written: 14d says it as well

HOUR: Final = _UNITS["h"]
DAY: Final = _UNITS["d"]


def parse_duration(value: object) -> int:
    """Return milliseconds; ValueError unless a number with a unit, a timedelta, or 0."""
    if isinstance(value, timedelta):
        return int(value / timedelta(milliseconds=1))
    text = str(value).strip()
    if text == "0":
        return 0
    if not isinstance(value, str) or _WHOLE.fullmatch(text) is None:
        msg = f"{text!r} is not a duration; write a number with a unit, such as 250ms, 90s, 12h or 7d"
        raise ValueError(msg)
    return round(sum(float(n) * _UNITS[unit] for n, unit in re.findall(_PART, text)))


def format_duration(millis: int) -> str:
    """Write milliseconds in the largest unit that divides them; `parse_duration` reads it back."""
    unit = next(u for u in _SHOWN if millis % _UNITS[u] == 0)
    return "0" if millis == 0 else f"{millis // _UNITS[unit]}{unit}"


def parse_instant(value: object) -> int:
    """Return milliseconds since the epoch; ValueError unless ISO 8601 or a YAML date."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            msg = f"{value!r} is not a time; write 2001-06-30 or 2001-06-30T12:00:00Z"
            raise ValueError(msg) from None
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def format_instant(millis: int) -> str:
    """Write milliseconds since the epoch as ISO 8601 in UTC."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)
    whole = millis % 1000 == 0
    return at.isoformat(timespec="seconds" if whole else "milliseconds").replace("+00:00", "Z")


def _show_address(secret: SecretStr | None) -> str | None:
    return None if secret is None else without_password(secret.get_secret_value())


def _as_read(value: Any) -> Any:
    return None if value is None else format_instant(value)


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": rf"^({_PART}\s*)+$|^0$", "examples": ["7d"]}),
]
Instant = Annotated[
    int,
    BeforeValidator(parse_instant),
    PlainSerializer(_as_read, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Address = Annotated[SecretStr, PlainSerializer(_show_address, return_type=str, when_used="json")]
