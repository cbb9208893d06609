"""Learning goes on from an older belief at the head's positions, once, and no record is lost or repeated."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from posterior.snapshot import Decision, Snapshot
from tests.trainers.tally import Tally
from tests.trainers.world import RULES, World, mails
from trainers.branching import DECISION, OF, SKIPPED, branch_of
from trainers.line import KNOWN, kept, known
from trainers.parts import Rules


class Died(Exception):
    """The process is gone."""


def upto(windows: int) -> Rules:
    return replace(RULES, max_windows=windows)


def ask(world: World, champion: Snapshot, *, continue_from: str = "champion") -> Decision:
    evidence = {"continue_from": continue_from}
    return world.ledger.decide(
        "main", at_ms=1, actor="ada", action="rollback", snapshot=champion.sha, evidence=evidence
    )


def begun(windows: int = 4) -> tuple[World, Snapshot, Decision]:
    """Learn some windows, and roll back to the first."""
    world = World(mails())
    world.go(upto(windows))
    champion = world.ledger.history("main")[1]
    return world, champion, ask(world, champion)


def branches(world: World) -> list[Snapshot]:
    return [row for row in world.ledger.history("main") if row.kind == "branch"]


@pytest.fixture(scope="module")
def undisturbed() -> World:
    world, _, _ = begun()
    world.go()
    return world


def test_a_branch_has_the_champion_s_tensors_and_all_else_of_the_head(undisturbed: World) -> None:
    history = undisturbed.ledger.history("main")
    (branch,) = branches(undisturbed)
    head, champion = history[branch.seq - 1], history[1]
    assert branch.posterior == champion.posterior
    assert (branch.parent, branch.index) == (head.sha, head.index)
    for name in ("stream_state", "labels", "spans", "counts", "settings"):
        assert getattr(branch, name) == getattr(head, name)
    assert branch.report[OF] == champion.sha
    assert branch.report[SKIPPED] == [2, 3, 4]


def test_evidence_goes_on_behind_it_without_gap_or_overlap(undisturbed: World) -> None:
    history = undisturbed.ledger.history("main")
    plain = World(mails())
    plain.go()
    assert all(a.spans == b.spans_before for a, b in itertools.pairwise(history))
    assert history[-1].counts == plain.ledger.history("main")[-1].counts
    assert [s.index for s in history if s.kind == "learned"] == [1, 2, 3, 4, 5, 6, 7]
    # Tally counts words: what the belief holds is the first window and those behind the branch.
    assert history[-1].report["kl_nats"] < plain.ledger.history("main")[-1].report["kl_nats"]


def test_it_is_carried_out_once_and_only_if_asked_for(undisturbed: World) -> None:
    world, champion, line = begun()
    world.go(upto(1))
    world.go(upto(1))
    (branch,) = branches(world)
    assert branch.report[DECISION] == line.hash
    ask(world, champion, continue_from="head")
    world.go()
    assert len(branches(world)) == 1
    again, champion, _ = begun()
    ask(again, champion, continue_from="head")  # somebody thought better of it in time
    again.go()
    assert branches(again) == []
    assert undisturbed.shas() != again.shas()


STEPS = ["before-branch", "before-ledger-commit", "in-ledger-commit", "after-ledger-commit", "after-branch"]


@pytest.mark.parametrize("step", [*STEPS, "after-plan", "after-train"])
@pytest.mark.parametrize("at", [1, 2])
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
        assert (step, at) == ("after-branch", 2)  # there is only one
    assert world.shas() == undisturbed.shas()


def test_a_plan_that_was_begun_on_the_old_head_is_superseded_with_the_reason() -> None:
    world = World(mails())
    world.go(upto(3))

    def crash(step: str) -> None:
        if step == "after-plan":
            raise Died

    with pytest.raises(Died):
        world.go(seed=1, crash=crash)
    plan = world.ledger.open_plan("main")
    assert plan is not None
    ask(world, world.ledger.history("main")[1])
    world.go(seed=2)
    closed = world.ledger.plan("main", plan.sha)
    assert closed is not None
    assert (closed.status, closed.reason) == ("superseded", "learning goes on from another belief")
    assert len(branches(world)) == 1


def test_what_tensors_know_is_handed_on_while_they_are_kept(undisturbed: World) -> None:
    (branch,) = branches(undisturbed)
    older = replace(branch, report={**branch.report, KNOWN: 1})
    assert known(branch) == branch.labels
    assert known(older) == branch.labels[:1]
    assert kept(older, older.posterior) == {KNOWN: 1}
    assert kept(older, "another") == kept(branch, branch.posterior) == {}


def test_a_belief_gone_on_from_twice_still_knows_no_class_that_its_tensors_lack(undisturbed: World) -> None:
    history = undisturbed.ledger.history("main")
    (branch,) = branches(undisturbed)
    older = replace(branch, report={**branch.report, KNOWN: 1})
    again = branch_of(history[-1], older, history, "0" * 64)
    assert known(again) == branch.labels[:1]


def test_a_champion_that_is_not_there_is_waited_for() -> None:
    world, _, _ = begun(4)
    champion = world.ledger.history("main")[1]
    standing = world.ledger._standing.pop(champion.sha)
    world.go(upto(1))
    assert branches(world) == []
    world.ledger._standing[champion.sha] = standing
    world.go(upto(1), updater=Tally())
    assert len(branches(world)) == 1
