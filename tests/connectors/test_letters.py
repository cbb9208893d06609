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
    letter_key,
    marker,
    original,
    read_letter,
    refiled,
)
from stream.intake import PASSED_LATENESS
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal
from tests.connectors.former_letters import former_letter, former_marker

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


FILED_MS = 7


def filed(record: Outgoing, offset: int = 0) -> RawRecord:
    """A letter as it is read back from its topic."""
    at = Position(record.topic, 0, offset)
    assert record.key is not None or record.value is not None  # else kafka-python refuses it
    when = FILED_MS if record.timestamp_ms is None else record.timestamp_ms
    return RawRecord(at, when, record.key, record.value, record.headers)


def compacted(topic: list[RawRecord]) -> list[RawRecord]:
    """What compaction leaves: the last record of each key, and of those no tombstone."""
    last = {raw.key: raw.position for raw in topic}
    return [raw for raw in topic if raw.position == last[raw.key] and raw.value is not None]


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
    once = filed(letter(Setaside(raw, refusal), "dead"))
    assert original(filed(letter(Setaside(once, refusal), "deader"))) == once
    former = filed(former_letter(raw, "dead"))
    assert original(filed(letter(Setaside(former, refusal), "deader"))) == former


@given(raws)
def test_a_letter_of_the_former_form_holds_it_too_and_can_be_filed_anew(raw: RawRecord) -> None:
    stored = filed(former_letter(raw, "dead"))
    assert original(stored) == raw
    anew = filed(refiled(stored))
    assert original(anew) == raw
    was, found = read_letter(stored), read_letter(anew)
    assert was is not None
    assert found is not None
    assert (was.former, found.former) == (True, False)
    assert replace(found, key=was.key) == was


places = st.integers(0, 3).map(lambda offset: Position("t", 0, offset))
REFUSED = {"json": Refusal("json", "no"), "model": Refusal("model", "no")}
acts = st.lists(st.tuples(st.sampled_from([*REFUSED, "sent again", "erased"]), places), max_size=12)


@given(acts, st.none() | st.just(b"k"), st.none() | st.just(b"v"))
def test_compaction_takes_away_nothing_that_is_read(
    done: list[tuple[str, Position]], key: bytes | None, value: bytes | None
) -> None:
    """Records of one key and of none, without a value too, filed, filed again, sent again and erased."""
    topic = []
    for offset, (what, at) in enumerate(done):
        raw = RawRecord(at, 5, key, value)
        if what == "erased":
            topic.append(RawRecord(Position("dead", 0, offset), FILED_MS, letter_key(at), None))
        elif what == "sent again":
            topic.append(filed(marker(at, "dead"), offset))
        else:
            topic.append(filed(letter(Setaside(raw, REFUSED[what]), "dead"), offset))
    held = fold(topic)
    assert list(fold(compacted(topic)).items()) == list(held.items())
    standing = {at: what for what, at in done if what != "sent again"}
    assert set(held) == {at for at, what in standing.items() if what != "erased"}
    assert {at for at, one in held.items() if one.requeued} == set(held) & {
        at for what, at in done if what == "sent again"
    }


def test_a_tombstone_takes_a_letter_of_the_former_form_by_either_key() -> None:
    one, two = (RawRecord(Position("t", 0, n), 5, b"k%d" % n, b"v") for n in (1, 2))
    topic = [filed(former_letter(raw, "dead"), n) for n, raw in enumerate((one, two))]
    by_place = RawRecord(Position("dead", 0, 2), 5, letter_key(one.position), None)
    assert list(fold([*topic, by_place])) == [two.position]
    assert list(fold([*topic, replace(by_place, key=one.key)])) == [two.position]
    assert list(fold([by_place, *(replace(raw, position=Position("dead", 1, 0)) for raw in topic)])) == [
        one.position,
        two.position,
    ]


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
    assert [(f.position.offset, f.filed.offset, f.requeued) for f in letters.values()] == [
        (2, 1, True),
        (1, 2, False),
    ]


def test_markers_of_the_former_form_still_count() -> None:
    one, two = (RawRecord(Position("t", 0, n), 5, b"k", b"v") for n in (1, 2))
    topic = [*(former_letter(raw, "dead") for raw in (one, two)), former_marker(two.position, "dead")]
    assert [f.requeued for f in fold([filed(r, n) for n, r in enumerate(topic)]).values()] == [False, True]


def test_half_a_surrogate_pair_and_a_long_reason_can_be_written() -> None:
    raw = RawRecord(Position("t", 0, 1), 5, b"k", b"v")
    found = read_letter(filed(letter(Setaside(raw, Refusal("json", "\ud800" + "x" * 5000)), "dead")))
    assert found is not None
    assert found.reason.startswith("\\ud800x")
    assert len(found.reason) < MAX_REASON_CHARS + 10


def test_what_is_no_letter_is_said_to_be_none() -> None:
    with pytest.raises(ValueError, match=r"t\[0\]@7 is no letter"):
        original(RawRecord(Position("t", 0, 7), 0, b"k", b"v"))
