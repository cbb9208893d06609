"""Bytes to records: CloudEvents, or the user's own JSON through pointers. Nothing raises; bad is a value.

Decoded here and not by the client library: a deserialiser that raises inside kafka-python makes the
next poll spin for ever. Where a JSON object names a key twice, the last one holds, as Python has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final, Literal, NoReturn

from pydantic import ValidationError
from pydantic_core import from_json

from stream.erasure import read_husk
from stream.prediction_id import event_of
from stream.record import Event, Label, Millis, RawRecord, Record, Refusal, Stage

Unit = Literal["iso", "s", "ms", "us"]
Body = Event | Label

_LABEL_TYPE: Final = "label"
_STRUCTURED: Final = b"application/cloudevents"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST_MS: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MILLISECOND
# Not the constructors, which go through Python and take longer: there is one call for every record.
_EVENT: Final[Callable[[Any], Event]] = Event.__pydantic_validator__.validate_python
_LABEL: Final[Callable[[Any], Label]] = Label.__pydantic_validator__.validate_python
_ATTRIBUTES: Final = {"event_id": "id", "text": "data.text", "task": "data.task", "label": "data.label"}


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


class _Bad(Exception):
    """Why a record is refused; never leaves this module."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def decoder(rules: CodecRules) -> Callable[[RawRecord], Record]:
    """Return the function that turns raw records into records."""
    read = _mapped(rules, rules.mapped) if rules.mapped else _cloud_event(rules)
    limit = rules.max_bytes

    def decode(raw: RawRecord) -> Record:
        value = raw.value
        if value is None:
            return Record(raw.position, sha256().hexdigest(), read_husk(raw) or _TOMBSTONE, raw)
        if len(value) > limit:
            refusal = Refusal("size", f"{len(value)} bytes; records.max_bytes is {limit}")
            return Record(raw.position, sha256(value).hexdigest(), refusal, raw)
        try:
            body, said = read(raw, value)
        except _Bad as bad:
            return Record(raw.position, sha256(value).hexdigest(), bad.refusal, raw)
        return Record(raw.position, sha256(said).hexdigest(), body, raw)

    return decode


_TOMBSTONE: Final = Refusal("json", "the record is empty (a tombstone carries nothing to learn)")


def _refuse(stage: Stage, reason: str) -> NoReturn:
    raise _Bad(Refusal(stage, reason))


def _parse(value: bytes) -> Any:
    try:
        # Several times faster than json.loads, and it refuses NaN and lone surrogates.
        return from_json(value, allow_inf_nan=False, cache_strings="keys")
    except ValueError as broken:
        _refuse(*_unreadable(value, str(broken)))


def _unreadable(value: bytes, why: str) -> tuple[Stage, str]:
    """Say why a value is no JSON, in the slower parser's words where it sees it too: they say more."""
    try:
        json.loads(value.decode(), parse_constant=_no_number)
    except UnicodeDecodeError as broken:
        return "encoding", f"not UTF-8: {broken.reason} at byte {broken.start}"
    except (ValueError, RecursionError) as broken:
        why = str(broken)
    return "json", f"not JSON: {why}"


def _no_number(name: str) -> NoReturn:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _event(names: Mapping[str, str], event_id: Any, text: Any, time_ms: Millis, task: Any) -> Event:
    try:
        event = _EVENT({"event_id": event_id, "text": text, "time_ms": time_ms, "task": task})
    except ValidationError as invalid:
        _refuse("schema", _first(invalid, names))
    if "\0" in text or "\0" in event_id or (task is not None and "\0" in task):
        _refuse("schema", "id, text or task holds a null character")
    if event_of(event_id) != event_id:
        _refuse("schema", f"{names['event_id']}: {event_id!r} has the form of a prediction id")
    return event


def _label(names: Mapping[str, str], event_id: Any, label: Any, time_ms: Millis) -> Label:
    try:
        told = _LABEL({"event_id": event_id, "label": label, "time_ms": time_ms})
    except ValidationError as invalid:
        _refuse("schema", _first(invalid, names))
    if "\0" in label or "\0" in event_id:
        _refuse("schema", "event id or label holds a null character")
    return told


def _first(invalid: ValidationError, names: Mapping[str, str]) -> str:
    """Say what is wrong first, at its place in the user's JSON; never the content, it may be private."""
    error = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
    field = str(error["loc"][0])
    return f"{names.get(field, field)}: {error['msg']}"


def _time(value: Any, unit: Unit, name: str) -> Millis:
    """Return milliseconds; text without a zone is UTC. Fractions of a millisecond are dropped."""
    try:
        time_ms = _iso(value, name) if unit == "iso" else _number(value, unit, name)
    except (ValueError, OverflowError) as broken:
        _refuse("schema", f"{name}: {broken}")
    if not _FIRST_MS <= time_ms <= _LAST_MS:
        _refuse("schema", f"{name}: lies in no calendar year; is its unit {unit}?")
    return time_ms


def _iso(value: Any, name: str) -> Millis:
    if not isinstance(value, str):
        _refuse("schema", f"{name}: expected ISO 8601 text, found {type(value).__name__}")
    moment = datetime.fromisoformat(value)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def _number(value: Any, unit: Unit, name: str) -> Millis:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse("schema", f"{name}: expected a number of {unit}, found {type(value).__name__}")
    if unit == "s":
        return round(value * 1000)
    return int(value // 1000) if unit == "us" else int(value)


def _compile(pointer: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _member(name: str, data: Any) -> Any:
    # What most pointers are, without the loop; a number could also be a place in a list.
    return data.get(name) if isinstance(data, dict) else None


def _getter(pointer: str) -> Callable[[Any], Any]:
    """Return what reads the value at a pointer, None where there is nothing."""
    parts = _compile(pointer)
    if len(parts) == 1 and not parts[0].isdigit():
        return partial(_member, parts[0])

    def get(data: Any) -> Any:
        for part in parts:
            if isinstance(data, dict):
                data = data.get(part)
            elif isinstance(data, list) and part.isascii() and part.isdigit() and int(part) < len(data):
                data = data[int(part)]
            else:
                return None
        return data

    return get


Read = Callable[[RawRecord, bytes], tuple[Body, bytes]]  # the body, and the bytes that said it


def _mapped(rules: CodecRules, mapped: Mapped) -> Read:
    ids, text, time = _getter(mapped.id), _getter(mapped.text), _getter(mapped.time)
    task = None if mapped.task is None else _getter(mapped.task)
    label, of, told = _getter(mapped.label), _getter(mapped.label_event_id), _getter(mapped.label_time)
    both, labels_topic, unit = rules.events_topic == rules.labels_topic, rules.labels_topic, mapped.time_unit
    event_names = {"event_id": mapped.id, "text": mapped.text, "task": mapped.task or "task"}
    label_names = {"event_id": mapped.label_event_id, "label": mapped.label}

    def read(raw: RawRecord, value: bytes) -> tuple[Body, bytes]:
        data = _parse(value)
        is_label = label(data) is not None if both else raw.position.topic == labels_topic
        if is_label:
            when = _time(told(data), unit, mapped.label_time)
            return _label(label_names, of(data), label(data), when), value
        group = None if task is None else task(data)
        return _event(event_names, ids(data), text(data), _time(time(data), unit, mapped.time), group), value

    return read


def _cloud_event(rules: CodecRules) -> Read:
    """Read CloudEvents: id, type, time as attributes; data {text, task} or {event_id, label}.

    In binary mode the attributes are ce_ headers and the value is the data; in structured mode all
    is in the value. Where events and labels share a topic, a type that ends in `label` is a label.
    """
    both, labels_topic = rules.events_topic == rules.labels_topic, rules.labels_topic
    label_names = _ATTRIBUTES | {"event_id": "data.event_id"}

    def read(raw: RawRecord, value: bytes) -> tuple[Body, bytes]:
        headers = dict(raw.headers)
        if "ce_id" not in headers or headers.get("content-type", b"").startswith(_STRUCTURED):
            (name, kind, time), data, said = *_structured(_parse(value)), value
        else:
            name, kind, time = _binary(headers)
            # No JSON holds a raw null byte, so the parts cannot run into each other.
            data = _parse(value)
            said = b"\0".join((value, headers["ce_id"], headers.get("ce_type", b""), headers["ce_time"]))
        if not isinstance(data, dict):
            _refuse("schema", "data: expected an object")
        when = _time(time, "iso", "time")
        is_label = kind.endswith(_LABEL_TYPE) if both else raw.position.topic == labels_topic
        if is_label:
            return _label(label_names, data.get("event_id"), data.get("label"), when), said
        return _event(_ATTRIBUTES, name, data.get("text"), when, data.get("task")), said

    return read


def _binary(headers: Mapping[str, bytes]) -> tuple[str, str, str]:
    if "ce_time" not in headers:
        _refuse("schema", "time: there is no ce_time header")
    try:
        return headers["ce_id"].decode(), headers.get("ce_type", b"").decode(), headers["ce_time"].decode()
    except UnicodeDecodeError:
        _refuse("encoding", "a ce_ header is not UTF-8")


def _structured(event: Any) -> tuple[tuple[Any, str, Any], Any]:
    if not isinstance(event, dict) or not {"id", "specversion"} & event.keys():
        _refuse(
            "schema",
            "neither ce_ headers nor a CloudEvent in the value; for JSON of your own set "
            "records.format: mapped",
        )
    return (event.get("id"), str(event.get("type", "")), event.get("time")), event.get("data")


def event_record(event: Event, *, source: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of an event as a binary CloudEvent."""
    data = {"text": event.text} | ({} if event.task is None else {"task": event.task})
    return _dump(data), _headers(event.event_id, "priorflow.event", source, event.time_ms)


def label_record(label: Label, *, source: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of a label as a binary CloudEvent; its id tells relabelling apart."""
    data = {"event_id": label.event_id, "label": label.label}
    name = f"{label.event_id}@{label.time_ms}"
    return _dump(data), _headers(name, "priorflow.label", source, label.time_ms)


def answer_record(
    answer: Mapping[str, Any], *, name: str, time_ms: Millis, source: str, kind: str = "priorflow.answer"
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return value and headers of an answer as a binary CloudEvent; `name` is its prediction id."""
    return _dump(answer), _headers(name, kind, source, time_ms)


def _dump(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(name: str, kind: str, source: str, time_ms: Millis) -> list[tuple[str, bytes]]:
    when = (_EPOCH + time_ms * _MILLISECOND).isoformat(timespec="milliseconds")
    said = {"id": name, "type": kind, "source": source, "time": when, "specversion": "1.0"}
    return [
        *((f"ce_{k}", v.encode()) for k, v in said.items()),
        ("content-type", b"application/json"),
    ]
