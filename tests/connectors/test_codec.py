"""Bytes to records: nothing raises, and every refusal says what to mend."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.codec import CodecRules, Mapped, decoder, event_record, label_record
from stream.record import Event, Label, Position, RawRecord, Refusal

TOPICS = CodecRules(events_topic="events", labels_topic="labels", max_bytes=2000)
MAPPED = CodecRules(
    events_topic="in",
    labels_topic="in",
    mapped=Mapped(
        id="/mail/id",
        text="/mail/parts/0",
        time="/at",
        task="/team",
        label="/verdict",
        label_event_id="/about",
        label_time="/at",
        time_unit="s",
    ),
)


def raw(
    value: bytes | None, topic: str = "events", headers: list[tuple[str, bytes]] | None = None
) -> RawRecord:
    return RawRecord(Position(topic, 0, 1), 0, None, value, tuple(headers or ()))


@given(st.text(min_size=1, max_size=50).filter(lambda t: "\0" not in t), st.integers(0, 4 * 10**12))
def test_what_we_write_as_cloud_events_is_read_back(text: str, time_ms: int) -> None:
    event = Event(event_id="e1", text=text, time_ms=time_ms, task="team")
    value, headers = event_record(event, source="here")
    assert decoder(TOPICS)(raw(value, headers=headers)).body == event
    label = Label(event_id="e1", label=text, time_ms=time_ms)
    value, headers = label_record(label, source="here")
    assert decoder(TOPICS)(raw(value, "labels", headers)).body == label


def test_structured_cloud_events_are_read() -> None:
    said = {"id": "e1", "type": "x", "time": "2002-01-01T00:00:00Z", "data": {"text": "hello"}}
    body = decoder(TOPICS)(raw(json.dumps(said).encode())).body
    assert body == Event(event_id="e1", text="hello", time_ms=1009843200000)


def test_pointers_find_things_in_the_users_own_json() -> None:
    mail = {"mail": {"id": "7", "parts": ["hello"]}, "at": 10.5, "team": "north"}
    verdict = {"about": "7", "verdict": "ham", "at": 11}
    decode = decoder(MAPPED)
    assert decode(raw(json.dumps(mail).encode(), "in")).body == Event(
        event_id="7", text="hello", time_ms=10_500, task="north"
    )
    assert decode(raw(json.dumps(verdict).encode(), "in")).body == Label(
        event_id="7", label="ham", time_ms=11_000
    )


def test_a_number_points_into_a_list_or_at_a_name() -> None:
    pointers = Mapped(id="/0", text="/1", time="/2", time_unit="ms")
    decode = decoder(CodecRules(events_topic="in", labels_topic="labels", mapped=pointers))
    event = Event(event_id="7", text="hello", time_ms=10)
    for said in (["7", "hello", 10], {"0": "7", "1": "hello", "2": 10}):
        assert decode(raw(json.dumps(said).encode(), "in")).body == event


@pytest.mark.parametrize(
    ("value", "stage", "reason"),
    [
        (None, "json", "empty"),
        (b"\xff\xfe", "encoding", "not UTF-8"),
        (b"{", "json", "not JSON"),
        (b'{"a": NaN}', "json", "NaN is no JSON number"),
        (b"[" * 1500, "json", "not JSON"),
        (b"[1]", "schema", "neither ce_ headers nor a CloudEvent"),
        (b"x" * 3000, "size", "3000 bytes; records.max_bytes is 2000"),
        (b'{"id": "e", "time": "2002-01-01T00:00:00Z"}', "schema", "data: expected an object"),
        (b'{"id": "e", "time": "soon", "data": {"text": "x"}}', "schema", "time"),
        (b'{"id": "e", "time": 5, "data": {"text": "x"}}', "schema", "time: expected ISO 8601"),
        (b'{"id": 5, "time": "2002-01-01T00:00:00Z", "data": {"text": "x"}}', "schema", "id: Input"),
        (b'{"id": "e", "time": "2002-01-01T00:00:00Z", "data": {"text": ""}}', "schema", "text"),
        (b'{"id": "e", "time": "2002-01-01T00:00:00Z", "data": {"text": "a\\u0000"}}', "schema", "null"),
    ],
)
def test_bad_records_are_values_with_a_stage_and_a_reason(
    value: bytes | None, stage: str, reason: str
) -> None:
    body = decoder(TOPICS)(raw(value)).body
    assert isinstance(body, Refusal)
    assert body.stage == stage
    assert reason in body.reason


@given(st.binary(max_size=300))
def test_no_bytes_make_the_decoder_raise(value: bytes) -> None:
    for rules in (TOPICS, MAPPED):
        decoder(rules)(raw(value, "in" if rules is MAPPED else "events"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        max_leaves=10,
    )
)
def test_no_json_makes_the_decoder_raise(value: object) -> None:
    data = json.dumps(value).encode()
    for rules in (TOPICS, MAPPED):
        assert isinstance(decoder(rules)(raw(data, "in" if rules is MAPPED else "events")).body, Refusal)
