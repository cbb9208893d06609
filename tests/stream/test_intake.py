"""The order is a function of the logs: whatever the polling, the stops and the bad records."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.clock import ClockRules
from stream.intake import Intake, IntakeRules
from stream.labels import Horizons
from stream.plan import Closing, Member
from stream.prediction_id import event_of, prediction_id
from stream.record import Event, Label, Position, Refusal
from stream.window import WindowRules
from tests.stream.logs import EVENTS, LABELS, RULES, Log, drive, logs, record

many = settings(max_examples=150, deadline=None)
TIME = replace(RULES, window=WindowRules(kind="time", size=70))
# First records wait for a quorum, and the clocks of some cannot be believed.
GUARDED = replace(RULES, clock=ClockRules(out_of_order_ms=20, max_ahead_ms=90, max_behind_ms=60, quorum=3))


def names(closings: list[Closing]) -> list[list[tuple[str, str]]]:
    return [[(m.event_id, m.label) for m in c.members] for c in closings if c.kind == "window"]


@many
@given(
    log=logs(), one=st.integers(0, 99), two=st.integers(0, 99), rules=st.sampled_from([RULES, TIME, GUARDED])
)
def test_any_interleaving_gives_the_same_closings_and_states(
    log: Log, one: int, two: int, rules: IntakeRules
) -> None:
    a, b = drive(log, seed=one, rules=rules), drive(log, seed=two, rules=rules)
    assert a.closings == b.closings
    assert a.states == b.states


@many
@given(
    log=logs(),
    stop=st.integers(1, 6),
    seed=st.integers(0, 99),
    rules=st.sampled_from([RULES, TIME, GUARDED]),
)
def test_stop_and_resume_anywhere_gives_the_same_plans(
    log: Log, stop: int, seed: int, rules: IntakeRules
) -> None:
    whole = drive(log, rules=rules)
    part = drive(log, seed=seed, restart_at=stop, rules=rules)
    if not part.states:
        return
    rest = drive(log, seed=seed + 1, state=part.states[-1], floors=whole.floors, rules=rules)
    assert part.closings + rest.closings == whole.closings
    assert part.states + rest.states == whole.states


@many
@given(log=logs())
def test_recorded_floors_replay_the_run(log: Log) -> None:
    live = drive(log)
    replayed = drive(log, seed=7, floors=live.floors)
    assert replayed.states == live.states


@many
@given(log=logs(), rules=st.sampled_from([RULES, TIME]))
def test_each_accepted_label_is_in_exactly_one_window(log: Log, rules: IntakeRules) -> None:
    run = drive(log, rules=rules)
    members = [m for c in run.closings for m in c.members]
    assert len({m.event_id for m in members}) == len(members)
    assert len({m.label_at for m in members}) == len(members)
    if rules is RULES:
        assert all(len(c.members) == 4 for c in run.closings if c.kind == "window")


@many
@given(log=logs())
def test_accounts_balance_and_everything_read_is_in_them(log: Log) -> None:
    run = drive(log)
    counts = run.intake.counts
    assert counts.balance() == 0
    assert counts.consumed + run.intake.buffered() == sum(len(bodies) for bodies in log.values())
    events, orphans, members = run.intake.waiting
    assert counts.pending == events + orphans + 2 * members
    aside = sum(len(c.setaside) for c in run.closings) + len(run.intake.aside())
    assert counts.dead_lettered + counts.late == aside


def good(log: Log) -> Log:
    return {key: [b for b in bodies if not isinstance(b, Refusal)] for key, bodies in log.items()}


@many
@given(log=logs(), rules=st.sampled_from([RULES, TIME]))
def test_bad_records_change_no_window(log: Log, rules: IntakeRules) -> None:
    def seen(run_of: Log) -> list[list[tuple[object, ...]]]:
        run = drive(run_of, rules=rules)
        return [
            [(m.event_id, m.text, m.label, m.arrived, m.accepted_ms, m.forecast) for m in c.members]
            for c in run.closings
            if c.kind == "window"
        ]

    assert seen(log) == seen(good(log))


@many
@given(log=logs(bad=False), seed=st.integers(0, 2**20))
def test_permutation_within_the_allowed_disorder_changes_nothing(log: Log, seed: int) -> None:
    """Neighbours less than the allowed disorder apart may arrive in either order."""
    rules = replace(RULES, clock=ClockRules(out_of_order_ms=10_000))
    shuffled = {key: sorted(bodies, key=lambda b: hash((seed, repr(b)))) for key, bodies in log.items()}

    def plan(of: Log) -> list[list[tuple[str, str]]]:
        return names(drive(of, rules=rules).closings)

    # Copies of one event, or two labels of one time, are told apart by offset alone: leave them out.
    keys = [(b.event_id, b.time_ms) for bodies in log.values() for b in bodies if not isinstance(b, Refusal)]
    if len(set(keys)) == len(keys):
        assert plan(shuffled) == plan(log)


def simple(*bodies: Event | Label | Refusal, rules: IntakeRules = RULES) -> list[Closing]:
    """Run events and labels on one partition each, in order."""
    log: Log = {(EVENTS, 0): [], (LABELS, 0): []}
    for body in bodies:
        log[(LABELS if isinstance(body, Label) else EVENTS), 0].append(body)
    return drive(log, rules=rules).closings


def event(name: str, time: int) -> Event:
    return Event(event_id=name, text=f"text of {name}", time_ms=time)


def label(name: str, time: int, told: str = "a") -> Label:
    return Label(event_id=name, label=told, time_ms=time)


ONE = replace(RULES, window=WindowRules(kind="count", size=2))


def members(closings: list[Closing]) -> list[Member]:
    return [m for c in closings for m in c.members]


def test_the_last_label_before_learning_wins() -> None:
    told = simple(event("x", 0), event("y", 1), label("x", 2), label("x", 3, "b"), label("y", 4), rules=ONE)
    assert [(m.event_id, m.label) for m in members(told)] == [("x", "b"), ("y", "a")]


def test_a_label_may_name_a_prediction() -> None:
    name = prediction_id("x", "ab" * 32)
    told = simple(event("x", 0), event("y", 1), label(name, 2), label("y", 3), rules=ONE)
    assert [m.event_id for m in members(told)] == ["x", "y"]


@given(st.text(min_size=1, max_size=60))
def test_prediction_ids_name_their_event(name: str) -> None:
    assert event_of(prediction_id(name, "0f" * 32)) == name


def test_a_label_that_comes_first_waits_for_its_event() -> None:
    told = simple(label("x", 0), label("y", 1), event("x", 5), event("y", 6), rules=ONE)
    assert [m.event_id for m in members(told)] == ["x", "y"]


def test_what_was_foretold_stays_with_the_event_until_its_label_comes() -> None:
    told = simple(
        event("x", 0),
        event("y", 1),
        event("z", 2),
        label("x", 3),
        label("y", 4),
        event("w", 20),
        label("z", 30),
        label("w", 31),
        rules=ONE,
    )
    second = told[1].members
    assert [(m.event_id, m.arrived) for m in second] == [("z", 0), ("w", 1)]
    assert [m.forecast["b"] for m in second if m.forecast] == [0.0, 1.0]


def test_the_vocabulary_and_the_cap_keep_a_typo_from_becoming_a_class() -> None:
    closed = replace(ONE, label_vocabulary=frozenset("ab"))
    capped = replace(ONE, max_classes=2)
    bodies = (
        event("x", 0),
        event("y", 1),
        event("z", 2),
        label("x", 3, "a"),
        label("y", 4, "typo"),
        label("z", 5, "b"),
        event("w", 9),
        label("w", 10, "c"),
    )
    for rules, refused in ((closed, {"typo", "c"}), (capped, {"b", "c"})):
        log = simple(*bodies, event("end", 90), rules=rules)
        assert not refused & {m.label for m in members(log)}


@pytest.mark.parametrize("late", ["accept", "divert"])
def test_late_records_go_where_the_policy_says(late: Literal["accept", "divert"]) -> None:
    rules = replace(ONE, late=late, horizons=Horizons(label_ms=500, dedup_ms=500, capacity=9))
    told = simple(
        event("x", 0), event("y", 100), event("old", 10), label("old", 101), label("x", 102), rules=rules
    )
    names_learned = {m.event_id for m in members(told)}
    assert ("old" in names_learned) == (late == "accept")


def test_clock_nonsense_is_refused_and_moves_nothing() -> None:
    rules = replace(ONE, clock=ClockRules(max_ahead_ms=1000, not_before_ms=-50))
    log: Log = {
        (EVENTS, 0): [event("x", 0), event("future", 10_000), event("y", 5), event("ancient", -60)],
        (LABELS, 0): [label("x", 6), label("y", 7)],
    }
    run = drive(log, rules=rules)
    assert [m.event_id for m in members(run.closings)] == ["x", "y"]
    assert run.intake.counts.dead_lettered == 2


def test_nothing_waits_for_ever() -> None:
    rules = replace(ONE, horizons=Horizons(label_ms=50, dedup_ms=50, capacity=3))
    bodies = [event(f"e{i}", 20 * i) for i in range(30)]
    run = drive({(EVENTS, 0): list(bodies), (LABELS, 0): [label("nobody", 0)]}, rules=rules)
    assert run.intake.counts.expired >= 25
    assert run.intake.waiting[0] <= 4


def test_a_source_that_goes_backwards_is_an_error() -> None:
    intake = Intake(RULES, [(EVENTS, 0)])
    intake.offer(record(Position(EVENTS, 0, 5), event("x", 0)))
    with pytest.raises(RuntimeError, match=r"events\[0\]@5 was offered after offset 5"):
        intake.offer(record(Position(EVENTS, 0, 5), event("x", 0)))
