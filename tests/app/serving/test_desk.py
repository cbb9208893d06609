"""The line to the model: whole requests, in order, by one version each, and none lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from priorflow.serving.desk import Desk, Full, NobodyInCharge
from tests.app.serving.clerk import Clerk, version

WAIT_S = 10


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(most=8, patience_s=60)
    made.start()
    yield made
    made.stop()


def test_nobody_answers_before_the_first_version(desk: Desk) -> None:
    with pytest.raises(NobodyInCharge):
        desk.ask([("a", "")])


def test_equal_texts_of_a_request_are_asked_once(desk: Desk) -> None:
    clerk = Clerk("one")
    desk.offer(version(clerk)).result(WAIT_S)
    clerk.asked.clear()
    told = desk.ask([("a", ""), ("b", ""), ("a", ""), ("a", "other task")]).result(WAIT_S)
    assert clerk.asked == ["a", "b", "a"]
    assert told.answers[0] is told.answers[2]


def test_a_version_takes_over_between_requests_and_never_within_one(desk: Desk) -> None:
    """It goes before the requests in line; the one under way ends as it began."""
    gate = threading.Event()
    old, new = Clerk("old"), Clerk("new")
    desk.offer(version(old, 1)).result(WAIT_S)
    old.gate = gate
    under_way = desk.ask([("a", ""), ("b", "")])
    while not under_way.running():
        pass
    behind = desk.ask([("c", "")])
    taken = desk.offer(version(new, 2))
    gate.set()
    taken.result(WAIT_S)
    assert under_way.result(WAIT_S).version.snapshot.index == 1
    assert behind.result(WAIT_S).version.snapshot.index == 2


def test_a_request_of_many_texts_holds_up_neither_others_nor_a_change() -> None:
    """It is answered to the end by who began it, while who comes now hears the new version at once."""
    desk = Desk(most=1000, patience_s=60)
    desk.start()
    old = Clerk("old", pause_s=0.01)
    desk.offer(version(old, 1)).result(WAIT_S)
    old.gate = threading.Event()
    large = desk.ask([(f"large {i}", "") for i in range(100)])
    while not large.running():
        pass
    taken = desk.offer(version(Clerk("new"), 2))
    small = desk.ask([("small", "")])
    done: list[int] = []
    for told in (large, small):
        told.add_done_callback(lambda told: done.append(len(told.result().answers)))
    old.gate.set()
    taken.result(WAIT_S)
    assert small.result(WAIT_S).version.snapshot.index == 2
    assert large.result(WAIT_S).version.snapshot.index == 1
    desk.stop()
    assert done == [1, 100]


def test_fifty_changes_under_load_lose_and_mix_nothing() -> None:
    desk = Desk(most=10_000, patience_s=60)
    desk.start()
    desk.offer(version(Clerk("0"), 0)).result(WAIT_S)
    clerks = {i: Clerk(str(i)) for i in range(51)}
    stop = threading.Event()

    def client() -> list[int]:
        seen = []
        while not stop.is_set():
            told = desk.ask([("a", ""), ("bb", ""), ("ccc", "")]).result(WAIT_S)
            assert len(told.answers) == 3
            seen.append(told.version.snapshot.index)
        return seen

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        for i in range(1, 51):
            desk.offer(version(clerks[i], i)).result(WAIT_S)
        stop.set()
        for seen in (c.result(WAIT_S) for c in clients):
            assert seen == sorted(seen)
    desk.stop()
    assert desk.waiting == 0


def test_who_cannot_answer_does_not_take_over(desk: Desk) -> None:
    good = version(Clerk("good"))
    desk.offer(good).result(WAIT_S)
    with pytest.raises(RuntimeError, match="bad cannot"):
        desk.offer(version(Clerk("bad", fails=True), 2)).result(WAIT_S)
    assert desk.version is good


def test_a_fault_is_told_to_who_asked_and_the_line_goes_on(desk: Desk) -> None:
    clerk = Clerk("moody")
    desk.offer(version(clerk)).result(WAIT_S)
    clerk.fails = True
    with pytest.raises(RuntimeError, match="moody cannot"):
        desk.ask([("a", "")]).result(WAIT_S)
    clerk.fails = False
    assert desk.ask([("a", "")]).result(WAIT_S).answers
    assert desk.waiting == 0


def test_too_long_a_line_is_refused_and_clears(desk: Desk) -> None:
    clerk = Clerk("slow")
    desk.offer(version(clerk)).result(WAIT_S)
    clerk.gate = threading.Event()
    waiting = [desk.ask([("a", ""), ("b", "")]) for _ in range(4)]
    with pytest.raises(Full, match="8 texts wait"):
        desk.ask([("c", "")])
    clerk.gate.set()
    assert all(told.result(WAIT_S) for told in waiting)
    assert desk.ask([("c", "")]).result(WAIT_S)


def test_what_takes_too_long_in_line_is_refused() -> None:
    desk = Desk(most=1000, patience_s=0.0)
    desk.start()
    clerk = Clerk("slow")
    desk.offer(version(clerk)).result(WAIT_S)
    desk.ask([("a", "")]).result(WAIT_S)  # now it is known how long a text takes
    clerk.gate = threading.Event()
    waiting = desk.ask([("a", "")])
    with pytest.raises(Full):
        desk.ask([("b", "")])
    clerk.gate.set()
    waiting.result(WAIT_S)
    desk.stop()


def test_who_has_gone_is_not_answered(desk: Desk) -> None:
    clerk = Clerk("slow")
    desk.offer(version(clerk)).result(WAIT_S)
    clerk.gate = threading.Event()
    first, second = desk.ask([("a", "")]), desk.ask([("gone", "")])
    assert second.cancel()
    clerk.gate.set()
    first.result(WAIT_S)
    assert desk.ask([("c", "")]).result(WAIT_S)
    assert "gone" not in clerk.asked
    assert desk.waiting == 0


def test_what_waits_is_answered_before_the_end(desk: Desk) -> None:
    desk.offer(version(Clerk("one"))).result(WAIT_S)
    waiting = [desk.ask([("a", "")]) for _ in range(5)]
    desk.stop()
    assert all(told.done() and told.result().answers for told in waiting)
    assert not desk.alive()
