"""Learning goes back to a champion and reads again what came since; each record counts once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior.snapshot import MERGED, NAMES, Circumstance, Decision, LedgerCorrupt, Snapshot
from posterior.tensors import from_bytes
from stream.intake import at_index
from stream.plan import Counts
from stream.source import SourceLost
from tests.trainers.test_branching import Died, branches, upto
from tests.trainers.test_relabelling import merge, rename
from tests.trainers.world import SPORT, WORDS, World, mails
from trainers.branching import (
    AGAIN,
    DECISION,
    OF,
    SKIPPED,
    CannotGoBack,
    branch_of,
    rewound_to,
)
from trainers.line import NEW, OLD, in_force, known
from trainers.relabelling import relabelled_row

Onward = Literal["head", "champion", "relearn"]


def ask(world: World, champion: Snapshot, onward: Onward = "relearn") -> Decision:
    return world.ledger.decide(
        "main",
        at_ms=1,
        actor="ada",
        action="rollback",
        snapshot=champion.sha,
        evidence={"continue_from": onward},
    )


def begun(windows: int = 4) -> tuple[World, Snapshot, Decision]:
    """Learn some windows, and roll back to the first, to learn again."""
    world = World(mails())
    world.go(upto(windows))
    champion = world.ledger.history("main")[1]
    return world, champion, ask(world, champion)


def members(world: World, rows: list[Snapshot]) -> list[str]:
    """Return the positions of all records that these rows learned, in order."""
    places = []
    for row in rows:
        plan = None if row.plan is None else world.ledger.plan("main", row.plan)
        if plan is not None:
            places += [place for member in plan.content["members"] for place in (member[0], member[2])]
    return places


def believed(history: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the rows that the head's tensors have learned from, newest first."""
    known, rows = {row.sha: row for row in history}, []
    row: Snapshot | None = history[-1]
    while row is not None:
        rows += [row] if row.kind == "learned" else []
        row = known.get(row.report.get(OF) or row.parent or "")
    return rows


def assert_counted_once(world: World) -> None:
    """Along the rows in force: no gap, no overlap, no record twice, and accounts that balance."""
    history = world.ledger.history("main")
    rows = in_force(history, history[-1])
    for before, after in itertools.pairwise(rows):
        if after.report.get(OF) != before.sha:  # which has the positions of the row before
            assert after.spans_before == before.spans
        assert after.spans == before.spans or after.kind != "branch"
    for row in history:
        counts = Counts(**row.counts)
        assert counts.balance() == 0
        assert counts.consumed == sum(span.consumed for span in row.spans)
    learned = members(world, rows)
    assert len(learned) == len(set(learned)) == history[-1].counts["learned"]
    assert {row.sha for row in believed(history)} <= {row.sha for row in rows}, (
        "what is believed lies behind the positions"
    )


@pytest.fixture(scope="module")
def undisturbed() -> World:
    world, _, _ = begun()
    world.go()
    return world


@pytest.fixture(scope="module")
def plain() -> World:
    world = World(mails())
    world.go()
    return world


def test_the_branch_is_the_champion_but_for_its_place(undisturbed: World) -> None:
    history = undisturbed.ledger.history("main")
    (branch,) = branches(undisturbed)
    head, champion = history[branch.seq - 1], history[1]
    assert (branch.parent, branch.index, branch.spans_before) == (head.sha, head.index, head.spans)
    for name in ("posterior", "labels", "spans", "counts", "settings"):
        assert getattr(branch, name) == getattr(champion, name)
    states = [json.loads(undisturbed.blobs.get(row.stream_state)) for row in (champion, branch)]
    assert states[1] == states[0] | {"index": head.index}
    assert (branch.report[OF], branch.report[SKIPPED], branch.report[AGAIN]) == (champion.sha, [], [2, 3, 4])


def test_only_the_number_of_a_state_is_changed(undisturbed: World) -> None:
    for row in undisturbed.ledger.history("main"):
        state = undisturbed.blobs.get(row.stream_state)
        assert at_index(state, row.index) == state
        assert json.loads(at_index(state, 77))["index"] == 77


def test_what_is_believed_in_the_end_is_what_was_there_without_it(undisturbed: World, plain: World) -> None:
    assert_counted_once(undisturbed)
    again, once = (w.ledger.history("main") for w in (undisturbed, plain))
    assert again[-1].counts == once[-1].counts
    assert again[-1].spans == once[-1].spans
    assert members(undisturbed, in_force(again, again[-1])) == members(plain, list(once))
    ours, theirs = (
        from_bytes(w.blobs.get(w.ledger.history("main")[-1].posterior)) for w in (undisturbed, plain)
    )
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)  # Tally counts, and draws nothing
    indices = [row.index for row in again if row.plan is not None]
    assert indices == list(range(1, len(indices) + 1)), "every window has a number of its own"


def test_it_waits_for_no_window_and_is_done_once() -> None:
    world = World(mails())
    world.go()
    end = world.ledger.history("main")[-1]
    line = ask(world, world.ledger.history("main")[2])
    world.go()
    world.go()
    (branch,) = branches(world)
    assert branch.report[DECISION] == line.hash
    assert world.ledger.history("main")[-1].counts == end.counts
    assert_counted_once(world)


def test_to_one_that_was_gone_back_over_learning_goes_back_without_a_window_too() -> None:
    """Whatever was asked for: nothing is closed by what it reads again, so there is nothing to wait for."""
    world, first, _ = begun()
    third = world.ledger.history("main")[3]
    world.go()
    ask(world, third, "champion")
    world.go()
    _, branch = branches(world)
    assert (branch.report[OF], branch.report[SKIPPED]) == (third.sha, [])
    assert_counted_once(world)
    ask(world, first, "champion")  # in force: it goes on at the head's positions, as the next window comes
    world.go()
    assert len(branches(world)) == 2


def test_one_who_thinks_better_of_it_in_time() -> None:
    world, champion, _ = begun()
    ask(world, champion, "head")
    world.go()
    assert branches(world) == []


STEPS = ["before-branch", "before-ledger-commit", "in-ledger-commit", "after-ledger-commit", "after-branch"]


@pytest.mark.parametrize("step", [*STEPS, "after-plan", "after-train", "before-acknowledge"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_dying_anywhere_leaves_the_undisturbed_chain(undisturbed: World, step: str, at: int) -> None:
    world, _, _ = begun()
    seen = 0

    def crash(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == at:
            raise Died

    try:
        world.go(seed=1, crash=crash)
    except Died:
        world.go(seed=2)
    else:
        assert step == "after-branch"  # there is only one
        assert at > 1
    assert world.shas() == undisturbed.shas()


def test_a_log_that_no_longer_reaches_so_far_commits_nothing_and_says_what_to_do() -> None:
    world, champion, _ = begun()
    before, partition = world.shas(), next(iter(world.log.lanes))
    first = next(s.low for s in champion.spans if (s.topic, s.partition) == partition)
    world.log.first[partition] = first + 1
    with pytest.raises(SourceLost, match=f"rollback --to {champion.sha[:12]} --continue-from head"):
        world.go()
    assert world.shas() == before
    ask(world, champion, "champion")
    world.go()
    (branch,) = branches(world)
    assert branch.report[SKIPPED] == [2, 3, 4]


def test_going_back_into_a_stretch_that_was_gone_back_over() -> None:
    world, first, _ = begun(4)
    third = world.ledger.history("main")[3]
    world.go(upto(2))  # 5 and 6, for 2 and 3
    ask(world, third)
    world.go(upto(1))
    history = world.ledger.history("main")
    assert [row.index for row in in_force(history, history[-1])] == [0, 1, 2, 3, 6, 7]
    assert branches(world)[1].report[AGAIN] == [5, 6]
    ask(world, first, "champion")
    world.go()
    assert branches(world)[2].report[SKIPPED] == [2, 3, 7]
    assert_counted_once(world)


@pytest.mark.parametrize(("learned_on", "place"), [(1, 3), (1, 4), (2, 3), (2, 4)])
def test_going_on_from_a_champion_that_was_gone_back_over_learns_no_label_twice(
    learned_on: int, place: int
) -> None:
    world = World(mails())
    world.go(upto(4))
    second, old = (world.ledger.history("main")[i] for i in (2, place))
    ask(world, second)
    world.go(upto(learned_on))
    ask(world, old, "champion")
    world.go()
    assert_counted_once(world)
    history = world.ledger.history("main")
    learned = members(world, believed(history))
    assert len(learned) == len(set(learned)) == history[-1].counts["learned"]


def test_a_class_that_was_renamed_keeps_its_new_name_when_learning_goes_back_past_that() -> None:
    world, once = World(mails()), World(mails())
    for each in (world, once):
        each.go(upto(3))
        rename(each, "money", "advertising")
        each.go(upto(1))
        rename(each, "linux", "kernel")
        each.go(upto(1))
    ask(world, world.ledger.history("main")[1])
    for each in (world, once):
        each.go()
    assert_counted_once(world)
    again, plain = (each.ledger.history("main") for each in (world, once))
    (branch,) = branches(world)
    assert branch.report[NAMES] == {"linux": "kernel", "money": "advertising"}
    assert set(branch.labels) == {"advertising", "kernel"}
    assert (again[-1].labels, again[-1].counts) == (plain[-1].labels, plain[-1].counts)
    assert members(world, in_force(again, again[-1])) == members(once, list(plain))
    states = [
        json.loads(each.blobs.get(each.ledger.history("main")[-1].stream_state)) for each in (world, once)
    ]
    assert states[0]["renamed"] == states[1]["renamed"]


def test_classes_that_were_merged_stay_one_when_learning_goes_back_past_that() -> None:
    world, once = (World(mails(words=WORDS | SPORT)) for _ in range(2))
    for each in (world, once):
        each.go(upto(3))
        merge(each, "linux", "sport", "talk")
        each.go(upto(1))
    ask(world, world.ledger.history("main")[1])
    for each in (world, once):
        each.go()
    assert_counted_once(world)
    again, plain = (each.ledger.history("main") for each in (world, once))
    (branch,) = branches(world)
    assert branch.report[NAMES] == {"linux": "talk", "sport": "talk"}
    assert branch.report[MERGED] == ["talk"]
    assert sorted(branch.labels) == ["money", "talk", "talk"]
    assert (again[-1].labels, again[-1].counts) == (plain[-1].labels, plain[-1].counts)
    assert members(world, in_force(again, again[-1])) == members(once, list(plain))


def test_going_on_from_a_champion_of_before_a_merger_it_is_asked_under_one_name() -> None:
    world = World(mails(words=WORDS | SPORT))
    world.go(upto(2))
    champion = world.ledger.history("main")[1]
    merge(world, "linux", "sport", "talk")
    world.go(upto(1))
    ask(world, champion, "champion")
    head = world.go(upto(2))
    (branch,) = branches(world)
    assert sorted(known(branch)) == sorted(branch.labels) == ["money", "talk", "talk"]
    assert head.report["foretold"] > 0
    assert head.report["classes"].keys() == {"money", "talk"}


def test_a_row_that_goes_back_and_merges_what_nobody_merged_is_refused() -> None:
    world = World(mails())
    world.go(upto(3))
    history = world.ledger.history("main")
    row = rewound_to(history[1], history[-1], history, "a decision")
    one, two = row.labels
    fence = world.ledger.acquire("main", owner="o", ttl_s=60, takeover=True)
    for more in ({}, {MERGED: [one]}, {MERGED: [two]}):
        clash = replace(row, labels=(two, two), report={**row.report, NAMES: {one: two}, **more})
        if more == {MERGED: [two]}:
            world.ledger.commit(fence, clash, Circumstance(at_ms=0, host="", code_version=""))
            continue
        with pytest.raises(LedgerCorrupt, match="its labels are other ones"):
            world.ledger.commit(fence, clash, Circumstance(at_ms=0, host="", code_version=""))


def test_going_on_from_a_champion_of_before_a_renaming_its_classes_bear_the_names_of_today() -> None:
    world = World(mails())
    world.go(upto(2))
    champion = world.ledger.history("main")[1]
    rename(world, "money", "advertising")
    world.go(upto(1))
    ask(world, champion, "champion")
    world.go(upto(1))
    (branch,) = branches(world)
    assert set(known(branch)) == set(branch.labels) == {"linux", "advertising"}


def test_a_champion_whose_classes_are_not_those_of_the_head_is_refused_in_words() -> None:
    world = World(mails())
    world.go(upto(3))
    history = world.ledger.history("main")
    head = replace(history[-1], labels=history[-1].labels[::-1])
    to = f"rollback --to {history[1].sha[:12]}"
    with pytest.raises(CannotGoBack, match=rf"those of the head begin otherwise.*{to} --relearn"):
        branch_of(head, history[1], history, "a decision")
    one, two = history[1].labels
    clash = [*history, relabelled_row(history[-1], "state", {OLD: one, NEW: two})]
    with pytest.raises(
        CannotGoBack, match=rf"two of its classes would have one name.*{to} --continue-from head"
    ):
        rewound_to(history[1], clash[-1], clash, "a decision")


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 20), st.sampled_from(["head", "champion", "relearn"])),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 3),
)
def test_however_often_and_wherever_one_goes_back_each_record_counts_once(
    turns: list[tuple[int, int, Onward]], seed: int
) -> None:
    world = World(mails(100, seed=seed))
    for windows, place, onward in turns:
        world.go(upto(windows), seed=windows)
        rows = [row for row in world.ledger.history("main") if row.kind == "learned"]
        ask(world, rows[place % len(rows)], onward)
    world.go(seed=9)
    assert_counted_once(world)
    once = World(mails(100, seed=seed))
    once.go()
    head, end = world.ledger.history("main")[-1], once.ledger.history("main")[-1]
    assert (head.counts, head.spans) == (end.counts, end.spans)
