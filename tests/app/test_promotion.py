"""The gate before a chain: nothing on less evidence, and evidence that outlives every restart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.blobs import open_blobs
from connectors.decision_log import champion
from connectors.ledger import open_ledger
from posterior.snapshot import Decision, Ledger, LedgerCorrupt, Snapshot
from priorflow.case import CASE, heard
from priorflow.promotion import MOST_EVENTS
from priorflow.unheard import MOST_WINDOWS, catch_up
from stream.plan import Member
from stream.relabelling import Names
from tests.app.judged import BOUNDS, Court, forecast, member
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, Writer, a_chain
from trainers.bounds import Bounds
from trainers.guards import Latency, Smoke


@pytest.fixture(params=["memory", "sqlite"])
def court(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Court]:
    if request.param == "memory":
        yield Court.opened()
        return
    blobs = open_blobs(tmp_path / "blobs")
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    yield Court.opened(ledger, blobs)
    ledger.close()


def gates(line: Decision) -> dict[str, str]:
    return {gate["gate"]: gate["verdict"] for gate in line.evidence["gates"]}


def test_the_first_sound_candidate_becomes_champion(court: Court) -> None:
    assert court.step(0.8) is None  # the root foretold nothing
    line = court.step(0.8)
    assert line is not None
    assert (line.action, line.snapshot) == ("promote", court.rows[0][0].sha)
    assert set(gates(line).values()) == {"pass"}


def test_an_unsound_first_candidate_does_not(court: Court) -> None:
    for p in (0.05, 0.05, 0.05):
        court.step(p)
    assert court.actions() == ["refuse", "refuse"]
    assert champion(court.log()) is None


def test_what_a_derived_chain_began_with_is_no_candidate(court: Court) -> None:
    """It is a row of that chain which no command could name: `promote` and `rollback` want a learned one."""
    shared, _ = court.learn(0.9)
    court.ledger.create(replace(a_chain("clean"), origin=shared.sha))
    fence = court.ledger.acquire("clean", owner=OWNER, ttl_s=60)
    told: dict[str, Any] = {
        "seq": 0,
        "kind": "branch",
        "parent": shared.sha,
        "plan": None,
        "spans_before": shared.spans,
    }
    first = replace(shared, chain="clean", report={}, **told)
    court.ledger.commit(fence, first, CIRCUMSTANCE)
    court.writer = Writer(court.ledger, court.blobs, fence, first)
    second, third = (court.learn(p)[0] for p in (0.9, 0.9))
    assert court.gate().candidate(second) is None
    assert court.gate().candidate(third) == second


def test_evidence_grows_over_windows_although_each_makes_a_new_candidate(court: Court) -> None:
    for p in (0.8, 0.8, *[0.84] * 30):
        court.step(p)
    lines = court.log()
    again = next(i for i, line in enumerate(lines) if i and line.action == "promote")
    assert set(court.actions()[1:again]) == {"wait"}
    assert again > 5  # no window alone would have been enough
    wagers = [line.evidence["case"]["wager"] for line in lines[1 : again + 1]]
    assert [w["events"] for w in wagers] == [40 * i for i in range(1, again + 1)]
    assert all(w["incumbent"] == lines[0].snapshot for w in wagers)
    assert lines[again].previous == lines[0].snapshot


def test_what_was_missed_of_a_class_under_a_former_name_bars_nobody(court: Court) -> None:
    """None of its events comes any more, so it could not be made good; the new name is judged by its own.

    That holds of a window too that was learned under the former name and is heard late.
    """
    strict = replace(BOUNDS, min_recall=0.5)
    for _ in range(3):
        refused = court.step(0.05, gate=court.gate(strict))
    assert refused is not None
    assert gates(refused)["recall"] == "fail"
    names = Names({"bill": "invoice", "ham": "mail"})
    for _ in range(3):
        row, members = court.learn(0.9)
        told = [replace(m, forecast=forecast(m.label, 0.9)) for m in members]
        line = court.gate(strict, names).consider(row, told, at_ms=1)
    assert line is not None
    assert gates(line)["recall"] == "pass"
    assert line.evidence[CASE]["showing"]["classes"].keys() == {"invoice", "mail"}


def test_a_worse_policy_is_refused_and_the_champion_stays(court: Court) -> None:
    for p in (0.9, 0.9, *[0.6] * 6):
        court.step(p)
    assert court.actions()[0] == "promote"
    assert court.actions()[-1] == "refuse"
    assert champion(court.log()) == court.rows[0][0].sha


def test_guards_hear_of_nothing_that_came_before_the_champion(court: Court) -> None:
    """Its own events say nothing of who follows it."""
    court.step(0.8)
    court.step(0.8)
    row, members = court.learn(0.8)
    early = [replace(m, arrived=court.rows[0][0].index) for m in members[:10]]
    line = court.gate().consider(row, (*early, *members[10:]), at_ms=1)
    assert line is not None
    showing = line.evidence["case"]["showing"]
    assert sum(b[0] for bins in showing["windows"] for b in bins) == court.per_window - 10


def test_the_champion_is_asked_about_a_sample(court: Court) -> None:
    court.step(0.8)
    court.step(0.8, count=500)
    court.step(0.9, count=500)
    court.oracle.asked = 0
    line = court.step(0.9, count=500)
    assert court.oracle.asked == MOST_EVENTS
    assert line is not None
    assert line.evidence["case"]["wager"]["events"] == 2 * MOST_EVENTS


@pytest.mark.parametrize(
    ("took", "action", "said"),
    [
        (Latency(answers=100, p99_ms=80.0), "promote", "pass"),
        (Latency(answers=100, p99_ms=80.1), "refuse", "fail"),
        (Latency(answers=99, p99_ms=1.0), "wait", "wait"),
        (None, "wait", "wait"),
    ],
)
def test_a_candidate_whose_answers_take_longer_than_the_bound_is_refused(
    court: Court, took: Latency | None, action: str, said: str
) -> None:
    asked: list[str] = []

    def tried(candidate: Snapshot) -> Smoke:
        asked.append(candidate.sha)
        return Smoke(snapshot=candidate.sha, loaded=True, latency=took)

    plain, slow = (replace(court.gate(b), smoke=tried) for b in (BOUNDS, replace(BOUNDS, max_p99_ms=80.0)))
    court.step(0.8)
    line = court.step(0.8, gate=slow)
    assert line is not None
    assert (line.action, gates(line)["latency"]) == (action, said)
    assert asked == [line.snapshot]
    court.step(0.8, gate=plain)
    assert len(asked) == 1, "without a bound nobody loads anything"
    court.step(0.05, gate=slow)
    court.step(0.05, gate=slow)
    assert len(asked) <= 2, "nor for a candidate that fails already"


def test_who_waits_for_labels_is_not_said_to_wait_for_a_process_too(court: Court) -> None:
    court.step(0.8)
    line = court.step(0.8, gate=court.gate(replace(BOUNDS, min_labels=10_000, smoke=True, max_p99_ms=80.0)))
    assert line is not None
    assert line.action == "wait"
    assert gates(line).keys().isdisjoint({"smoke", "latency"})


def test_a_candidate_that_cannot_be_timed_because_it_does_not_load_is_refused(court: Court) -> None:
    def broken(candidate: Snapshot) -> Smoke:
        return Smoke(snapshot=candidate.sha, loaded=False, why="no torch")

    court.step(0.8)
    line = court.step(0.8, gate=replace(court.gate(replace(BOUNDS, max_p99_ms=80.0)), smoke=broken))
    assert line is not None
    assert (line.action, gates(line)["smoke"]) == ("refuse", "fail")


def test_a_candidate_whose_process_somebody_ended_is_waited_for(court: Court) -> None:
    def stopped(candidate: Snapshot) -> Smoke:
        return Smoke(snapshot=candidate.sha, loaded=False, ended=True, why="signal 2")

    court.step(0.8)
    line = court.step(0.8, gate=replace(court.gate(replace(BOUNDS, smoke=True)), smoke=stopped))
    assert line is not None
    assert (line.action, gates(line)["smoke"]) == ("wait", "wait")


def forced(court: Court, snapshot: Snapshot) -> None:
    court.ledger.decide(
        "main",
        at_ms=1,
        actor="a person",
        action="promote",
        snapshot=snapshot.sha,
        evidence={"reason": "why not"},
    )


def test_a_champion_that_does_worse_than_the_one_before_it_goes_by_itself(court: Court) -> None:
    """The head is no better than it, so nothing else would take its place."""
    for p in (0.85, 0.85, 0.55, 0.55):
        court.step(p)
    good, bad = court.rows[0][0], court.rows[2][0]
    assert champion(court.log()) == good.sha
    forced(court, bad)
    lines = [court.step(0.55) for _ in range(12)]
    back = next(line for line in lines if line is not None and line.action == "rollback")
    assert (back.snapshot, back.previous, back.actor) == (good.sha, bad.sha, "gate")
    assert gates(back) == {"holds": "fail"}
    assert back.evidence["case"]["tenure"]["events"] <= 6 * court.per_window
    assert champion(court.log()) == good.sha  # and stays: it has nobody before it


def test_a_champion_no_worse_than_the_one_before_it_stays(court: Court) -> None:
    for p in (0.8, 0.8, 0.8, 0.8):
        court.step(p)
    forced(court, court.rows[2][0])
    for _ in range(20):
        court.step(0.8)
    assert "rollback" not in court.actions()
    tenure = court.log()[-1].evidence["case"]["tenure"]
    assert (tenure["challenger"], tenure["incumbent"]) == (court.rows[2][0].sha, court.rows[0][0].sha)
    assert tenure["events"] > 10 * court.per_window


def test_nobody_is_rolled_back_where_that_is_switched_off(court: Court) -> None:
    for p in (0.85, 0.85, 0.55, 0.55):
        court.step(p)
    forced(court, court.rows[2][0])
    gate = replace(court.gate(), rolls_back=False)
    for _ in range(12):
        court.step(0.55, gate=gate)
    assert "rollback" not in court.actions()


RIGHT = st.lists(st.sampled_from([0.55, 0.7, 0.75, 0.8, 0.85, 0.95]), min_size=2, max_size=9)


def undisturbed(right: Sequence[float]) -> list[Decision]:
    court, gate = Court.opened(), None
    gate = court.gate()
    for p in right:
        court.step(p, gate=gate)
    return list(court.log())


@given(RIGHT, st.data())
@settings(deadline=None, max_examples=40)
def test_dying_between_commit_and_decision_neither_loses_nor_doubles_evidence(
    right: list[float], data: st.DataObject
) -> None:
    """Whatever was left unheard is heard at the next start, and the log is the undisturbed one."""
    court, left = Court.opened(), 0
    for p in right:
        row, members = court.learn(p)
        dies = left < MOST_WINDOWS - 1 and data.draw(st.booleans())
        left = left + 1 if dies else 0
        if not dies:
            list(catch_up(court.gate(), court.again, lambda: 1))
            assert court.gate().consider(row, members, at_ms=1) is None  # heard already: not twice
    list(catch_up(court.gate(), court.again, lambda: 1))
    assert list(court.log()) == undisturbed(right)


def test_windows_that_cannot_be_had_again_are_named(court: Court) -> None:
    for p in (0.8, 0.8):
        court.step(p)
    for p in (0.8, 0.8):
        court.learn(p)

    def gone(_parent: Snapshot, _child: Snapshot) -> Sequence[Member] | None:
        return None

    assert list(catch_up(court.gate(), gone, lambda: 1)) == []
    line = court.step(0.8)
    assert line is not None
    assert line.evidence["unheard"] == [3, 4]
    following = court.step(0.8)
    assert following is not None
    assert "unheard" not in following.evidence


def test_no_more_is_made_up_for_than_a_crash_leaves(court: Court) -> None:
    for _ in range(MOST_WINDOWS + 3):
        court.learn(0.8)
    first, *_ = catch_up(court.gate(), court.again, lambda: 1)
    assert first.evidence["unheard"] == [2, 3]  # the first window was foretold by nobody
    assert heard(court.log()) == MOST_WINDOWS + 3


class Twice:
    """A ledger in which somebody else decides just before we do, once."""

    def __init__(self, inner: Ledger, meanwhile: Callable[[], object]) -> None:
        self._inner, self._meanwhile = inner, [meanwhile]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decide(self, *args: Any, **said: Any) -> Decision:
        while self._meanwhile:
            self._meanwhile.pop()()
        return self._inner.decide(*args, **said)


def test_of_a_zombie_and_its_successor_one_is_heard(court: Court) -> None:
    court.step(0.8)
    court.step(0.8)
    row, members = court.learn(0.8)
    zombie = court.gate()
    successor = court.gate()
    slow = replace(zombie, ledger=Twice(court.ledger, lambda: successor.consider(row, members, at_ms=1)))
    assert slow.consider(row, members, at_ms=2) is None
    assert [line.evidence["case"]["heard"] for line in court.log()] == [2, 3]


def test_a_promotion_by_hand_meanwhile_ends_the_case(court: Court) -> None:
    court.step(0.8)
    court.step(0.8)
    head, members = court.learn(0.8)

    def by_hand() -> None:
        court.ledger.decide(
            "main", at_ms=1, actor="ada@host", action="promote", snapshot=head.sha, evidence={}
        )

    slow = replace(court.gate(), ledger=Twice(court.ledger, by_hand))
    line = slow.consider(head, members, at_ms=2)
    assert line is not None
    assert line.evidence["champion"] == head.sha
    assert line.evidence["case"]["wager"]["since"] == head.index + 1


def test_after_a_rollback_the_comparison_begins_anew(court: Court) -> None:
    for p in (0.8, 0.8, 0.9, 0.9):
        court.step(p)
    first = court.log()[0].snapshot
    court.ledger.decide("main", at_ms=1, actor="ada", action="rollback", snapshot=first, evidence={})
    line = court.step(0.9)
    assert line is not None
    assert line.evidence["case"]["wager"]["events"] == court.per_window
    assert line.evidence["case"]["heard"] == 5


def test_another_clip_or_unreadable_evidence_opens_a_new_wager_and_says_so(court: Court) -> None:
    for p in (0.8, 0.8, 0.8, 0.8):
        court.step(p)
    line = court.step(0.8, gate=court.gate(replace(BOUNDS, clip=2.0)))
    assert line is not None
    assert line.evidence["case"]["wager"]["events"] == court.per_window
    spoilt = {"case": {**line.evidence["case"], "wager": {"events": 3}}}
    court.ledger.decide("main", at_ms=1, actor="gate", action="wait", snapshot=line.snapshot, evidence=spoilt)
    line = court.step(0.8)
    assert line is not None
    assert "no wager" in line.evidence["reopened"]


def test_a_champion_that_is_gone_is_told(court: Court) -> None:
    for p in (0.8, 0.8):
        court.step(p)
    missing = replace(court.ledger.decisions("main")[-1], snapshot="f" * 64)
    row, members = court.learn(0.8)
    gate = court.gate()
    with pytest.raises(LedgerCorrupt, match="promote another"):
        gate._champion([missing])
    assert gate.consider(row, members, at_ms=1) is not None


def test_only_the_policy_s_own_belief_can_be_promoted(court: Court) -> None:
    """Learning has gone back to the champion; labels of what a better head foretold come after that."""
    court.step(0.6)
    court.step(0.99)
    (first, _), (better, _) = court.rows
    head = court.writer.head
    branch = replace(
        head,
        seq=head.seq + 1,
        kind="branch",
        parent=head.sha,
        plan=None,
        posterior=first.posterior,
        spans_before=head.spans,
        report={"tensors_of": first.sha},
    )
    court.writer.commit(branch)
    row, _ = court.learn(0.6)
    late = [member(row.index, place, better.index, 0.99) for place in range(200)]
    line = court.gate().consider(row, late, at_ms=1)
    assert line is not None
    assert set(gates(line).values()) == {"pass", "wait"}
    assert (gates(line)["better"], gates(line)["candidate"]) == ("pass", "wait")
    assert (line.action, line.snapshot) == ("wait", first.sha)


def in_charge(court: Court, row: Snapshot) -> None:
    court.ledger.decide(
        "main", at_ms=1, actor="ada", action="promote", snapshot=row.sha, evidence={"forced": True}
    )


def counted(line: Decision | None) -> int:
    assert line is not None
    return int(line.evidence["case"]["wager"]["events"])


def test_what_a_champion_has_learned_says_nothing_of_it_when_it_is_read_again(court: Court) -> None:
    for p in (0.6, 0.7, 0.8):
        court.learn(p)
    (first, _), _, (third, _) = court.rows
    court.go_back(first)
    in_charge(court, third)  # of the stretch that was gone back over: it has learned what comes now
    assert [counted(court.step(0.7)) for _ in range(2)] == [0, 0]
    assert [counted(court.step(0.7)) for _ in range(2)] == [40, 80]


def test_the_champion_that_learning_goes_back_to_is_not_compared_with_itself(court: Court) -> None:
    for p in (0.6, 0.7, 0.8):
        court.learn(p)
    first = court.rows[0][0]
    in_charge(court, first)
    court.go_back(first)
    assert [counted(court.step(0.7)) for _ in range(3)] == [0, 40, 80]


def test_what_was_counted_before_learning_went_back_is_not_counted_again(court: Court) -> None:
    court.learn(0.6)
    first = court.rows[0][0]
    in_charge(court, first)
    assert [counted(court.step(0.7)) for _ in range(3)] == [0, 40, 80]
    court.go_back(first)  # the records of the three come again
    assert [counted(court.step(0.7)) for _ in range(3)] == [0, 40, 80]


def test_a_window_that_was_gone_back_over_is_not_made_up_for(court: Court) -> None:
    for p in (0.6, 0.7, 0.8):
        court.learn(p)
    court.go_back(court.rows[0][0])
    row, _ = court.learn(0.7)
    assert [child.sha for _, child in court.gate().unheard(())] == [row.sha]


@given(
    st.lists(st.tuples(st.floats(0.05, 0.99), st.integers(0, 60)), min_size=2, max_size=12),
    st.sampled_from([BOUNDS, replace(BOUNDS, min_labels=100), replace(BOUNDS, alpha=1e-6, min_gain=0.1)]),
)
@settings(deadline=None, max_examples=60)
def test_nothing_is_promoted_on_less_evidence(windows: list[tuple[float, int]], bounds: Bounds) -> None:
    court = Court.opened()
    gate = court.gate(bounds)
    for p, count in windows:
        court.step(p, gate=gate, count=count)
    for line in court.log():
        if line.action != "promote":
            assert set(gates(line).values()) != {"pass"}
            continue
        assert set(gates(line).values()) == {"pass"}
        showing = line.evidence["case"]["showing"]
        assert sum(b[0] for bins in showing["windows"] for b in bins) >= bounds.min_labels
        if line.previous is not None:
            numbers = next(g for g in line.evidence["gates"] if g["gate"] == "better")["numbers"]
            assert numbers["labels"] >= bounds.min_labels
            assert numbers["log_e"] >= -math.log(bounds.alpha)
            assert numbers["gain"] >= bounds.min_gain
