"""Bytes to records: CloudEvents, or the user's own JSON through pointers. Nothing raises; bad is a value.

Decoded here and not by the client library: a deserialiser that raises inside kafka-python makes the
next poll spin for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn

from pydantic import ValidationError

from stream.record import Event, Label, Millis, RawRecord, Record, Refusal

Unit = Literal["iso", "s", "ms", "us"]
Pointer = tuple[str | int, ...]

_EVENT_TYPE: Final = "event"
_LABEL_TYPE: Final = "label"
_STRUCTURED: Final = b"application/cloudevents"
_PER_SECOND: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """JSON pointers into the user's own records."""

    id: str = "/id"
    text: str = "/text"
    time: str = "/time"
    task: str | None = None
    label: str = "/label"
    label_event_id: str = "/event_id"
    label_time: str = "/time"
    time_unit: Unit = "iso"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRules:
    """What is read from where. One topic may carry both: a record with a label is then a label."""

    events_topic: str
    labels_topic: str
    max_bytes: int = 1 << 20
    mapped: Mapped | None = None  # None: CloudEvents
    pointers: Mapping[str, Pointer] = field(default_factory=dict)


class _Bad(Exception):
    """Why a record is refused; never leaves this module."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def decoder(rules: CodecRules) -> Callable[[RawRecord], Record]:
    """Return the function that turns raw records into records."""
    read = _mapped(rules, rules.mapped) if rules.mapped else _cloud_event(rules)
    limit = rules.max_bytes

    def decode(raw: RawRecord) -> Record:
        value = raw.value or b""
        sha = hashlib.sha256(value).hexdigest()
        try:
            if len(value) > limit:
                _refuse("size", f"{len(value)} bytes; records.max_bytes is {limit}")
            return Record(raw.position, sha, read(raw, value), raw)
        except _Bad as bad:
            return Record(raw.position, sha, bad.refusal, raw)

    return decode


def _refuse(stage: Any, reason: str) -> NoReturn:
    raise _Bad(Refusal(stage, reason))


def _parse(value: bytes) -> Any:
    if not value:
        _refuse("json", "the record is empty (a tombstone carries nothing to learn)")
    try:
        text = value.decode()
    except UnicodeDecodeError as broken:
        _refuse("encoding", f"not UTF-8: {broken.reason} at byte {broken.start}")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as broken:
        _refuse("json", f"not JSON: {broken}")


def _no_number(name: str) -> NoReturn:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _event(event_id: Any, text: Any, time_ms: Millis, task: Any) -> Event:
    if isinstance(text, str) and "\0" in text:
        _refuse("schema", "text: holds a null character")
    try:
        return Event(event_id=event_id, text=text, time_ms=time_ms, task=task)
    except ValidationError as invalid:
        _refuse("schema", _first(invalid))


def _label(event_id: Any, label: Any, time_ms: Millis) -> Label:
    try:
        return Label(event_id=event_id, label=label, time_ms=time_ms)
    except ValidationError as invalid:
        _refuse("schema", _first(invalid))


def _first(invalid: ValidationError) -> str:
    error = invalid.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


def _time(value: Any, unit: Unit) -> Millis:
    try:
        if unit == "iso":
            if not isinstance(value, str):
                _refuse("schema", f"time: expected ISO 8601 text, found {type(value).__name__}")
            moment = datetime.fromisoformat(value)
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse("schema", f"time: expected a number of {unit}, found {type(value).__name__}")
        return round(value * _PER_SECOND[unit] * 1000) if unit != "ms" else round(value)
    except (ValueError, OverflowError) as broken:
        _refuse("schema", f"time: {broken}")


def _compile(pointer: str) -> Pointer:
    parts = pointer.split("/")[1:]
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in parts)


def _at(data: Any, pointer: Pointer, name: str, *, required: bool = True) -> Any:
    for part in pointer:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, str) and part.isdecimal() and int(part) < len(data):
            data = data[int(part)]
        elif required:
            _refuse("schema", f"{name}: nothing at /{'/'.join(map(str, pointer))}")
        else:
            return None
    return data


def _mapped(rules: CodecRules, mapped: Mapped) -> Callable[[RawRecord, bytes], Event | Label]:
    ids, text, time = _compile(mapped.id), _compile(mapped.text), _compile(mapped.time)
    task = None if mapped.task is None else _compile(mapped.task)
    label, of, told = _compile(mapped.label), _compile(mapped.label_event_id), _compile(mapped.label_time)
    both = rules.events_topic == rules.labels_topic

    def read(raw: RawRecord, value: bytes) -> Event | Label:
        data = _parse(value)
        is_label = raw.position.topic == rules.labels_topic
        if both:
            is_label = _at(data, label, "label", required=False) is not None
        if is_label:
            when = _time(_at(data, told, "label_time"), mapped.time_unit)
            return _label(_at(data, of, "label_event_id"), _at(data, label, "label"), when)
        group = None if task is None else _at(data, task, "task", required=False)
        when = _time(_at(data, time, "time"), mapped.time_unit)
        return _event(_at(data, ids, "id"), _at(data, text, "text"), when, group)

    return read


def _cloud_event(rules: CodecRules) -> Callable[[RawRecord, bytes], Event | Label]:
    """Read CloudEvents: id, type, time as attributes; data {text, task} or {event_id, label}.

    In binary mode the attributes are ce_ headers and the value is the data; in structured mode all
    is in the value. A type that ends in `label` is a label, wherever it arrives.
    """
    both = rules.events_topic == rules.labels_topic

    def read(raw: RawRecord, value: bytes) -> Event | Label:
        headers = dict(raw.headers)
        if headers.get("content-type", b"").startswith(_STRUCTURED) or "ce_id" not in headers:
            attributes = _parse(value)
            if not isinstance(attributes, dict):
                _refuse("schema", "expected a CloudEvent object")
            data = attributes.get("data")
        else:
            data = _parse(value)
            try:
                attributes = {k[3:]: v.decode() for k, v in headers.items() if k.startswith("ce_")}
            except UnicodeDecodeError:
                _refuse("encoding", "a ce_ header is not UTF-8")
        if not isinstance(data, dict):
            _refuse("schema", "data: expected an object")
        when = _time(attributes.get("time"), "iso")
        kind = str(attributes.get("type", ""))
        is_label = kind.endswith(_LABEL_TYPE) if both else raw.position.topic == rules.labels_topic
        if is_label:
            return _label(data.get("event_id"), data.get("label"), when)
        return _event(attributes.get("id"), data.get("text"), when, data.get("task"))

    return read


def event_record(event: Event, *, source: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of an event as a binary CloudEvent."""
    data = {"text": event.text} | ({} if event.task is None else {"task": event.task})
    return _dump(data), _headers(event.event_id, "priorflow.event", source, event.time_ms)


def label_record(label: Label, *, source: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of a label as a binary CloudEvent; its id tells relabelling apart."""
    data = {"event_id": label.event_id, "label": label.label}
    name = f"{label.event_id}@{label.time_ms}"
    return _dump(data), _headers(name, "priorflow.label", source, label.time_ms)


def _dump(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(name: str, kind: str, source: str, time_ms: Millis) -> list[tuple[str, bytes]]:
    when = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    said = {"id": name, "type": kind, "source": source, "time": when, "specversion": "1.0"}
    return [
        *((f"ce_{k}", v.encode()) for k, v in said.items()),
        ("content-type", b"application/json"),
    ]
