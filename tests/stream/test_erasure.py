"""What is erased is out of the state, stays out whatever the log still holds, and moves nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clock import ClockRules
from stream.erasure import (
    HUSK,
    LeftOut,
    Stretch,
    husk,
    left_out_of,
    mentions,
    named,
    read_husk,
    without,
)
from stream.intake import Intake, IntakeRules
from stream.prediction_id import event_of, prediction_id
from stream.record import Erased, Event, Label, Position, RawRecord, Record, Refusal
from stream.window import WindowRules
from tests.stream.logs import EVENTS, LABELS, RULES, Body, Log, Run, drive, logs, record

many = settings(max_examples=150, deadline=None)
TIME = replace(RULES, window=WindowRules(kind="time", size=70))
GUARDED = replace(RULES, clock=ClockRules(out_of_order_ms=20, max_ahead_ms=90, max_behind_ms=60, quorum=3))
NEVER_LATE = replace(RULES, clock=ClockRules(out_of_order_ms=100_000))

some = st.sets(st.integers(0, 20), min_size=1, max_size=6).map(
    lambda numbers: frozenset(f"e{i}" for i in numbers)
)
# Rows between two windows, whose states hold members of the open one.
BETWEEN = replace(RULES, progress_every=3)
rules = st.sampled_from([RULES, TIME, GUARDED, BETWEEN])


def out_of(ids: frozenset[str]) -> LeftOut:
    return LeftOut(frozenset(map(named, ids)))


def speaks(body: Body, ids: frozenset[str]) -> bool:
    return isinstance(body, Event | Label) and event_of(body.event_id) in ids


def learned(run: Run) -> list[list[tuple[str, str]]]:
    return [[(m.event_id, m.label) for m in c.members] for c in run.closings if c.kind == "window"]


def going_on(log: Log, whole: Run, state: bytes, which: IntakeRules) -> Run:
    """Go on from a state over the whole log, with the floors of the undisturbed run."""
    return drive(log, seed=5, state=state, floors=whole.floors, rules=which)


@many
@given(log=logs(), ids=some, stop=st.integers(1, 6), which=rules)
def test_a_state_without_them_is_one_that_an_intake_writes(
    log: Log, ids: frozenset[str], stop: int, which: IntakeRules
) -> None:
    for state in drive(log, restart_at=stop, rules=which).states:
        out = out_of(ids)
        bare = without(state, out)
        again = Intake(which, (), state=bare)
        assert again.state() == bare
        assert again.counts.balance() == 0
        assert without(bare, out) == bare
        assert not mentions(bare, out)
        told = json.loads(bare)
        assert left_out_of(told) == out
        for event_id in ids:
            assert json.dumps(event_id).encode() not in bare
            assert f'"text {event_id[1:]}"'.encode() not in bare


@many
@given(log=logs(), ids=some, stop=st.integers(1, 6), which=rules)
def test_a_state_that_does_not_speak_of_them_only_says_that_they_are_left_out(
    log: Log, ids: frozenset[str], stop: int, which: IntakeRules
) -> None:
    out = out_of(frozenset(f"other {i}" for i in ids))
    for state in drive(log, restart_at=stop, rules=which).states:
        told = json.loads(without(state, out))
        assert told.pop("erased") == sorted(out.ids)
        assert told == json.loads(state)


@many
@given(log=logs(), ids=some, stop=st.integers(1, 6), which=rules)
def test_erased_at_any_moment_the_stream_goes_on_and_never_learns_them(
    log: Log, ids: frozenset[str], stop: int, which: IntakeRules
) -> None:
    whole, part = drive(log, rules=which), drive(log, restart_at=stop, rules=which)
    if not part.states:
        return
    rest = going_on(log, whole, without(part.states[-1], out_of(ids)), which)
    assert rest.intake.counts.balance() == 0
    assert rest.intake.counts.consumed == whole.intake.counts.consumed
    assert not {event_id for window in learned(rest) for event_id, _ in window} & ids
    assert all(not mentions(state, out_of(ids)) for state in rest.states)
    assert not {a.event_id for c in rest.closings for a in c.arrivals} & ids


@many
@given(log=logs(), ids=some, stop=st.integers(0, 6), which=rules)
def test_a_log_that_holds_husks_in_their_place_gives_the_same(
    log: Log, ids: frozenset[str], stop: int, which: IntakeRules
) -> None:
    whole, part = drive(log, rules=which), drive(log, restart_at=stop, rules=which)
    if not part.states:
        return
    emptied: Log = {
        lane: [Erased(named(event_of(b.event_id)), b.time_ms) if speaks(b, ids) else b for b in bodies]  # type: ignore[union-attr] # speaks() says which
        for lane, bodies in log.items()
    }
    state = without(part.states[-1], out_of(ids))
    one, two = (going_on(each, whole, state, which) for each in (log, emptied))
    assert learned(one) == learned(two)
    assert one.states == two.states


@many
@given(log=logs(), ids=some, which=st.sampled_from([NEVER_LATE, replace(TIME, clock=NEVER_LATE.clock)]))
def test_what_is_learned_without_them_is_what_a_log_without_them_would_teach(
    log: Log, ids: frozenset[str], which: IntakeRules
) -> None:
    fewer: Log = {lane: [body for body in bodies if not speaks(body, ids)] for lane, bodies in log.items()}
    out = out_of(ids)
    begun = Intake(which, log, left_out=out).state()
    assert learned(drive(log, rules=which, state=begun)) == learned(drive(fewer, rules=which))


@many
@given(log=logs(), first=st.integers(0, 12), size=st.integers(0, 8), stop=st.integers(1, 6), which=rules)
def test_a_stretch_of_the_log_is_left_out_whatever_it_says(
    log: Log, first: int, size: int, stop: int, which: IntakeRules
) -> None:
    out = LeftOut(
        stretches=(Stretch(EVENTS, 0, first, first + size), Stretch(LABELS, 1, first, first + size))
    )
    whole, part = drive(log, rules=which), drive(log, restart_at=stop, rules=which)
    if not part.states:
        return
    bare = without(part.states[-1], out)
    assert Intake(which, (), state=bare).state() == bare
    assert not mentions(bare, out)
    rest = going_on(log, whole, bare, which)
    places = [at for c in rest.closings for m in c.members for at in (m.event, m.label_at)]
    assert not any(out.at((at.topic, at.partition, at.offset)) for at in places)
    assert rest.intake.counts.balance() == 0


def test_a_member_whose_label_alone_is_left_out_waits_again() -> None:
    log: Log = {
        (EVENTS, 0): [
            Event(event_id="e0", text="text 0", time_ms=0),
            Event(event_id="e1", text="t", time_ms=9),
        ],
        (LABELS, 0): [
            Label(event_id="e0", label="a", time_ms=5),
            Label(event_id="e1", label="b", time_ms=30),
        ],
    }
    run = drive(log, rules=replace(RULES, progress_every=4))
    assert run.intake.waiting == (0, 0, 2)
    state = without(run.states[-1], LeftOut(stretches=(Stretch(LABELS, 0, 0, 0),)))
    again = Intake(RULES, (), state=state)
    assert again.waiting == (1, 0, 1)
    assert again.counts.erased == 1
    assert again.counts.balance() == 0


def test_a_late_label_of_theirs_is_taken_for_erased_under_either_name() -> None:
    out = out_of(frozenset({"e0"}))
    for name in ("e0", prediction_id("e0", "a" * 64)):
        told = out.emptied(record(Position(LABELS, 0, 3), Label(event_id=name, label="x", time_ms=7)))
        assert told.body == Erased(named("e0"), 7)
        assert told.whole().value is None
    other = record(Position(LABELS, 0, 3), Label(event_id="e1", label="x", time_ms=7))
    assert out.emptied(other) is other


@pytest.mark.parametrize("time_ms", [-5, 0, 1_700_000_000_000])
def test_a_husk_says_its_place_and_time_and_nothing_else(time_ms: int) -> None:
    at = Position(EVENTS, 1, 8)
    raw = RawRecord(at, 77, b"ada@example.org", b'{"text": "secret"}', (("ce_id", b"e0"),))
    left = husk(Record(at, "s", Event(event_id="e0", text="secret", time_ms=time_ms), raw), raw)
    assert (left.position, left.timestamp_ms, left.key, left.value) == (at, 77, None, None)
    assert read_husk(left) == Erased(named("e0"), time_ms)
    assert b"secret" not in repr(left).encode()
    refused = husk(Record(at, "s", Refusal("json", "no"), raw), raw)
    assert (refused.value, refused.headers, read_husk(refused)) == (None, (), None)


@pytest.mark.parametrize("said", [b"", b"x 1", b"\xff" * 64 + b" 1", b"a" * 64, b"a" * 64 + b" soon"])
def test_a_header_that_says_something_else_is_no_husk(said: bytes) -> None:
    assert read_husk(RawRecord(Position(EVENTS, 0, 0), 0, None, None, ((HUSK, said),))) is None


@pytest.mark.parametrize(
    ("key", "value", "headers", "meant"),
    [
        (b"e0", b"{", (), True),
        (None, b'{"id": "e0", "text": ', (), True),
        (None, b"{}", (("ce_id", b"e0"),), True),
        (None, json.dumps({"event_id": prediction_id("e0", "a" * 64)}).encode(), (), True),
        (None, b'\xff "e0"', (), True),
        (None, b'"it said \\"e0"', (), True),
        (None, b'"\\ud800" "e1', (), False),
        (None, b'{"id": "e00"}', (), False),
        (b"e00", b"e0", (), False),
        (None, None, (), False),
    ],
)
def test_a_record_that_cannot_be_read_is_theirs_if_it_names_them(
    key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...], meant: bool
) -> None:
    raw = RawRecord(Position(EVENTS, 0, 0), 0, key, value, headers)
    record = Record(raw.position, "s", Refusal("json", "no"), raw)
    out = out_of(frozenset({"e0"}))
    assert out.means(record, raw) is meant
    left = out.emptied(record)
    assert isinstance(left.body, Refusal)
    assert left.body.stage == "json"
    assert left.whole() == (RawRecord(raw.position, 0, None, None) if meant else raw)


def test_an_id_that_json_may_write_in_two_ways_is_found_in_both() -> None:
    for event_id in ("Zoë", 'the "first"', "back\\slash"):
        for value in (json.dumps({"id": event_id}), json.dumps({"id": event_id}, ensure_ascii=False)):
            raw = RawRecord(Position(EVENTS, 0, 0), 0, None, f'"{value}'.encode())
            record = Record(raw.position, "s", Refusal("schema", "no"), raw)
            assert out_of(frozenset({event_id})).means(record, raw)
