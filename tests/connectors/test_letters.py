from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.letters import (
    LATE,
    MAX_REASON_CHARS,
    Outgoing,
    again,
    fold,
    letter,
    marker,
    original,
    read_letter,
)
from stream.intake import PASSED_LATENESS
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal

names = st.text(st.characters(codec="utf-8"), max_size=8)
headers = st.lists(
    st.tuples(
        st.one_of(names, st.sampled_from(["priorflow.topic", "priorflow.offset"])), st.binary(max_size=8)
    )
)
positions = st.builds(
    Position,
    st.text("abc.-_", min_size=1, max_size=5),
    st.integers(0, 99),
    st.integers(0, 2**62),
)
raws = st.builds(
    RawRecord,
    positions,
    st.integers(0, 2**45),
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=8),
    headers.map(tuple),
)
refusals = st.none() | st.builds(Refusal, st.sampled_from(["json", "clock"]), st.text(max_size=2000))


def filed(record: Outgoing, offset: int = 0) -> RawRecord:
    """A letter as it is read back from its topic."""
    at = Position(record.topic, 0, offset)
    assert record.key is not None or record.value is not None  # else kafka-python refuses it
    return RawRecord(at, record.timestamp_ms or 0, record.key, record.value, record.headers)


@given(raws, refusals)
def test_a_letter_holds_the_record_as_it_was(raw: RawRecord, refusal: Refusal | None) -> None:
    stored = filed(letter(Setaside(raw, refusal), "dead"))
    assert original(stored) == raw
    found = read_letter(stored)
    assert found is not None
    assert (found.position, found.size) == (raw.position, len(raw.value or b""))
    assert found.stage == (LATE if refusal is None else refusal.stage)


@given(raws, refusals)
def test_a_letter_about_a_letter_still_holds_the_first(raw: RawRecord, refusal: Refusal | None) -> None:
    once = replace(filed(letter(Setaside(raw, refusal), "dead")), timestamp_ms=raw.timestamp_ms)
    assert original(filed(letter(Setaside(once, refusal), "deader"))) == once


@given(raws)
def test_sent_again_it_is_the_same_and_excused_once(raw: RawRecord) -> None:
    sent = again(raw)
    assert (sent.topic, sent.partition) == (raw.position.topic, raw.position.partition)
    assert sent.value == raw.value
    assert sent.headers[:-1] == raw.headers
    assert sent.headers[-1][0] == PASSED_LATENESS
    twice = again(replace(raw, headers=sent.headers))
    assert [name for name, _ in twice.headers].count(PASSED_LATENESS) == 1


def test_copies_are_one_letter_and_markers_are_none() -> None:
    one, two = (RawRecord(Position("t", 0, n), 5, b"k", b"v") for n in (1, 2))
    bad = Refusal("json", "not JSON")
    topic = [letter(Setaside(raw, bad), "dead") for raw in (one, two, one)]
    stored = [filed(record, n) for n, record in enumerate([*topic, marker(two.position, "dead")])]
    foreign = RawRecord(Position("dead", 0, 9), 0, None, b"by somebody else", (("priorflow.topic", b"\xff"),))
    letters = fold([*stored, foreign])
    assert [(f.position.offset, f.copies, f.requeued) for f in letters.values()] == [
        (1, 2, False),
        (2, 1, True),
    ]


def test_half_a_surrogate_pair_and_a_long_reason_can_be_written() -> None:
    raw = RawRecord(Position("t", 0, 1), 5, b"k", b"v")
    found = read_letter(filed(letter(Setaside(raw, Refusal("json", "\ud800" + "x" * 5000)), "dead")))
    assert found is not None
    assert found.reason.startswith("\\ud800x")
    assert len(found.reason) < MAX_REASON_CHARS + 10


def test_what_is_no_letter_is_said_to_be_none() -> None:
    with pytest.raises(ValueError, match=r"t\[0\]@7 is no letter"):
        original(RawRecord(Position("t", 0, 7), 0, b"k", b"v"))
