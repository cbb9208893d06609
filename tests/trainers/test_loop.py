"""A window is learned exactly once or not at all, whatever dies and whenever."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from posterior.snapshot import Fenced
from stream.breaker import TooMuchBad
from stream.source import SourceLost
from tests.trainers.tally import Tally
from tests.trainers.world import EVENTS, RULES, World, mails


class Died(Exception):
    """The process is gone."""


STEPS = [
    "before-plan",
    "after-plan",
    "after-train",
    "before-ledger-commit",
    "in-ledger-commit",
    "after-ledger-commit",
    "before-acknowledge",
    "after-acknowledge",
]


@pytest.fixture(scope="module")
def undisturbed() -> World:
    world = World(mails())
    world.go()
    return world


def test_windows_are_learned_and_foretold(undisturbed: World) -> None:
    history = undisturbed.ledger.history("main")
    learned = [s for s in history if s.kind == "learned"]
    assert [s.index for s in learned] == [1, 2, 3, 4, 5, 6, 7]
    assert learned[0].report["accuracy"] is None
    assert all(s.report["accuracy"] > 0.9 for s in learned[2:])
    assert all(a.spans == b.spans_before for a, b in itertools.pairwise(history))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", [1, 2, 5])
def test_dying_anywhere_leaves_the_undisturbed_chain(undisturbed: World, step: str, at: int) -> None:
    world = World(mails())
    seen = 0

    def crash(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == at:
            raise Died(step)

    with pytest.raises(Died):
        world.go(seed=1, crash=crash)
    world.go(seed=2)
    assert world.shas() == undisturbed.shas()


def test_dying_over_and_over_leaves_the_undisturbed_chain(undisturbed: World) -> None:
    world = World(mails())
    for turn in range(60):
        left = turn % 7

        def crash(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Died

        try:
            world.go(seed=turn, crash=crash)
        except Died:
            continue
        break
    world.go(seed=99)
    assert world.shas() == undisturbed.shas()


def test_stopping_early_and_going_on_changes_nothing(undisturbed: World) -> None:
    world = World(mails())
    for seed in range(4):
        world.go(replace(RULES, max_windows=2), seed=seed)
    assert world.shas() == undisturbed.shas()


def test_two_owners_at_once_the_old_one_is_refused() -> None:
    world = World(mails())
    world.go(replace(RULES, max_windows=1))

    def taken(step: str) -> None:
        if step == "after-train":
            world.ledger.acquire("main", owner="other", ttl_s=60, takeover=True)

    before = world.shas()
    with pytest.raises(Fenced):
        world.go(seed=1, crash=taken)
    assert world.shas() == before


def test_a_plan_made_under_another_runtime_is_superseded_with_the_reason() -> None:
    world = World(mails())
    stopped = {"at": 0}

    def crash(step: str) -> None:
        stopped["at"] += step == "after-plan"
        if stopped["at"] == 2:
            raise Died

    with pytest.raises(Died):
        world.go(crash=crash)
    open_plan = world.ledger.open_plan("main")
    assert open_plan is not None
    world.go(replace(RULES, runtime={"world": 2}), seed=1)
    row = world.ledger.plan("main", open_plan.sha)
    assert row is not None
    assert row.status == "superseded"
    assert row.reason is not None
    assert "runtime" in row.reason


def test_a_window_that_keeps_failing_is_quarantined_and_the_stream_goes_on() -> None:
    world = World(mails())
    world.go(updater=Tally(hurt=lambda order: order.window == 2))
    history = world.ledger.history("main")
    kinds = [s.kind for s in history]
    assert kinds == ["root", "learned", "learned", "quarantined", *["learned"] * 4]
    bad, parent = history[3], history[2]
    assert bad.posterior == parent.posterior
    assert bad.counts["quarantined"] == 40
    assert "not finite" in bad.report["quarantined"]
    assert bad.report["accuracy"] is not None


def poisoned(*, bad: int) -> World:
    log = mails()
    for lane in log.lanes.values():
        del lane[:]
    clean = mails()
    for (topic, number), lane in clean.lanes.items():
        for i, raw in enumerate(lane):
            if bad and i % bad == 0:
                for value in (b"\xff\xfe", b"{", b"[]", b'{"id": NaN}', b"x" * (2 << 20), None, b'{"id": 7}'):
                    log.append((topic, number), value)
            log.append((topic, number), raw.value)
    return World(log)


def test_poison_changes_no_tensor_and_none_is_lost(undisturbed: World) -> None:
    world = poisoned(bad=9)
    world.go()
    learned = [s.posterior for s in world.ledger.history("main")]
    assert learned == [s.posterior for s in undisturbed.ledger.history("main")]
    head = world.ledger.history("main")[-1]
    listed = [p for s in world.ledger.history("main") for p in s.rejected]
    assert head.counts["dead_lettered"] == len(listed) == len(set(listed))
    assert {str(a.raw.position) for a in world.asides} >= set(listed)
    assert all(a.refusal is not None and a.refusal.reason for a in world.asides)


def test_too_much_poison_stops_the_run_and_says_where() -> None:
    world = poisoned(bad=1)
    rules = replace(RULES, intake=replace(RULES.intake, breaker=replace(RULES.intake.breaker, share=0.2)))
    with pytest.raises(TooMuchBad, match=r"records are bad.*the last is (mails|answers)\["):
        world.go(rules)
    assert world.asides


def test_a_log_that_forgot_what_we_need_stops_the_run() -> None:
    world = World(mails())
    world.go(replace(RULES, max_windows=2))
    world.log.truncate((EVENTS, 0), len(world.log.lanes[EVENTS, 0]))
    with pytest.raises(SourceLost, match=r"mails\[0\]: offset \d+ is wanted but the log begins at"):
        world.go(seed=1)


def test_a_partition_that_appears_later_is_taken_in_by_a_recorded_floor() -> None:
    world = World(mails(80))
    world.go()
    before = world.shas()
    more = mails(160)
    for (topic, number), lane in more.lanes.items():
        if topic == EVENTS:
            for raw in lane[len(world.log.lanes[topic, number]) :]:
                world.log.append((topic, 7), raw.value)
        else:
            for raw in lane[len(world.log.lanes[topic, number]) :]:
                world.log.append((topic, number), raw.value)
    head = world.go(seed=4)
    assert world.shas()[: len(before)] == before
    assert any(f.partition == 7 for f in world.ledger.floors("main"))
    assert head.index > len(before) - 1


def test_swapped_labels_sound_the_alarm() -> None:
    world = World(mails(600, swap_from=300))
    world.go()
    drift = [s.index for s in world.ledger.history("main") if s.report.get("drift")]
    assert drift
    assert min(drift) >= 14


def test_silence_lets_the_others_go_on() -> None:
    """A live run: one partition says nothing for long; what it holds up is let go by a floor."""
    world = World(mails())
    world.log.lanes[EVENTS, 2].clear()
    calls = iter(range(4000))
    head = world.go(replace(RULES, until_end=False), stopping=lambda: next(calls) > 3000)
    assert head.index >= 2
    assert world.ledger.floors("main")
