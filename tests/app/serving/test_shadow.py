"""A shadow is asked beside the champion, and whatever it does, answers are what they are without it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from priorflow.config import load
from priorflow.serving.app import application
from priorflow.serving.comparing import Beside, Heard, chosen
from priorflow.serving.comparisons import BEFORE, NAME, Comparisons
from priorflow.serving.desk import Desk, Told
from priorflow.serving.gauges import Gauges
from priorflow.serving.shadow import Shadow
from priorflow.serving.watcher import Watcher
from stream.prediction_id import event_of
from tests.app.serving.clerk import Clerk, version
from tests.app.serving.test_comparing import beside
from tests.app.serving.test_watcher import Town, settle

WAIT_S = 10
LONG = "a long text, all in all"


class Pair:
    """A champion who has answered, and a shadow in a line of three."""

    def __init__(self, *listeners: Callable[[Beside], None], share: float = 1.0) -> None:
        self.champion, self.clerk = version(Clerk("champion"), 1), Clerk("shadow")
        self.desk = Desk(most=3, patience_s=float("inf"))
        self.shadow = Shadow(self.desk, share=share, listeners=listeners)
        self.desk.start()
        self.desk.offer(version(self.clerk, 2)).result(WAIT_S)
        self.clerk.asked.clear()

    def see(self, name: str, text: str = LONG) -> None:
        heard = Heard(version=self.champion, answer=self.champion.answerer.answer(text), seconds=0.1)
        self.shadow.see(name, (text, ""), heard, at_ms=5)

    @contextmanager
    def answering(self) -> Iterator[Desk]:
        """Have the champion answer in a line of its own."""
        desk = Desk(most=8, patience_s=float("inf"))
        desk.start()
        desk.offer(self.champion).result(WAIT_S)
        yield desk
        desk.stop()

    def idle(self) -> None:
        settle(lambda: self.desk.waiting == 0)


@pytest.fixture
def heard() -> list[Beside]:
    return []


@pytest.fixture
def pair(heard: list[Beside]) -> Iterator[Pair]:
    made = Pair(heard.append)
    yield made
    if made.clerk.gate is not None:
        made.clerk.gate.set()
    made.desk.stop()


def test_what_was_answered_is_compared(pair: Pair, heard: list[Beside]) -> None:
    pair.see("m1")
    pair.idle()
    (one,) = heard
    assert (one.event_id, one.at_ms, one.difference.agrees) == ("m1", 5, True)
    assert (one.champion.version.snapshot.index, one.shadow.version.snapshot.index) == (1, 2)
    assert pair.shadow.standing.sums.events == 1


def test_who_answers_never_hears_for_the_shadow_however_quick_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Listeners write files and topics: that is for the line's own thread, also where it was done at once."""
    threads = list[int]()
    pair = Pair(lambda _: threads.append(threading.get_ident()))
    ask = Desk.ask

    def at_once(desk: Desk, *asked: Any, **more: Any) -> Future[Told]:
        told = ask(desk, *asked, **more)
        told.result(WAIT_S)
        return told

    monkeypatch.setattr(Desk, "ask", at_once)
    pair.see("m1")
    settle(lambda: bool(threads))
    pair.desk.stop()
    assert threads != [threading.get_ident()]


def test_a_full_line_drops_and_counts_and_nobody_waits(pair: Pair, heard: list[Beside]) -> None:
    pair.clerk.gate = threading.Event()
    for i in range(10):
        pair.see(f"m{i}")
    assert pair.shadow.standing.dropped == 7
    pair.clerk.gate.set()
    pair.idle()
    assert [one.event_id for one in heard] == ["m0", "m1", "m2"]


def test_a_fault_of_the_shadow_is_counted_and_told_until_it_is_well(pair: Pair) -> None:
    pair.clerk.fails = True
    pair.see("m1")
    pair.idle()
    assert pair.shadow.standing.failed == 1
    assert "shadow cannot" in (pair.shadow.standing.trouble or "")
    pair.clerk.fails = False
    pair.see("m2")
    pair.idle()
    assert (pair.shadow.standing.sums.events, pair.shadow.standing.trouble) == (1, None)


def test_a_listener_that_fails_is_a_fault_of_the_shadow() -> None:
    def full(_: Beside) -> None:
        msg = "no space left"
        raise OSError(msg)

    pair = Pair(full)
    pair.see("m1")
    pair.idle()
    assert "no space left" in (pair.shadow.standing.trouble or "")
    assert (pair.shadow.standing.failed, pair.shadow.standing.sums.events) == (1, 0)
    pair.desk.stop()


def test_a_version_is_not_its_own_shadow(pair: Pair) -> None:
    """A candidate that was promoted meanwhile is what it would be compared with."""
    pair.desk.offer(version(pair.clerk, 1)).result(WAIT_S)
    pair.clerk.asked.clear()
    pair.see("m1")
    pair.idle()
    assert pair.clerk.asked == []


def test_one_that_takes_over_in_between_is_not_compared_with_itself(pair: Pair, heard: list[Beside]) -> None:
    promoted = Clerk("promoted", gate=threading.Event())
    assert promoted.gate is not None
    taken = pair.desk.offer(version(promoted, 1))
    pair.see("m1")  # another one is still the shadow
    promoted.gate.set()
    taken.result(WAIT_S)
    pair.idle()
    assert promoted.asked[1:] == [LONG]
    assert heard == []


def test_before_there_is_one_and_after_it_stopped_nothing_is_compared(pair: Pair) -> None:
    empty = Shadow(Desk(most=1, patience_s=1), share=1.0)
    heard = Heard(version=pair.champion, answer=pair.champion.answerer.answer("a"), seconds=0.1)
    empty.see("m1", ("a", ""), heard, at_ms=0)
    pair.desk.stop()
    pair.see("m1")
    for stood in (empty.standing, pair.shadow.standing):
        assert (stood.sums.events, stood.dropped, stood.failed) == (0, 0, 0)


@given(st.sets(st.text(min_size=1, max_size=5), max_size=20), st.sampled_from([0.0, 0.3, 1.0]))
def test_a_share_is_chosen_by_the_id_alone(names: set[str], share: float) -> None:
    heard: list[Beside] = []
    pair = Pair(heard.append, share=share)
    for name in sorted(names):
        pair.see(name)
        pair.idle()
    assert {one.event_id for one in heard} == {name for name in names if chosen(name, share)}
    pair.desk.stop()


class Server:
    """A server with a champion, a shadow that may do anything, and a file of comparisons."""

    def __init__(self, folder: Path) -> None:
        settings = load(None, overrides={"home": str(folder)})
        self.desk = Desk(most=64, patience_s=60)
        self.pair = Pair(Comparisons(folder / "kept", most_bytes=1 << 20).add)
        watcher = Watcher(self.desk, Town.__new__(Town), poll_s=60)
        gauges = Gauges(self.desk, watcher, self.pair.shadow)
        app = application(settings, self.desk, watcher, gauges, version="0", shadow=self.pair.shadow)
        self.client = TestClient(app, raise_server_exceptions=False)
        self.desk.start()
        self.desk.offer(self.pair.champion).result(WAIT_S)

    def predict(self, *names: str) -> Any:
        events = [{"id": name, "text": LONG} for name in names]
        return self.client.post("/predict", json={"events": events})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    if made.pair.clerk.gate is not None:
        made.pair.clerk.gate.set()
    made.pair.desk.stop()
    made.desk.stop()


def test_answers_are_the_same_whatever_the_shadow_does(server: Server) -> None:
    before = server.predict("m1", "m2").json()
    server.pair.idle()
    server.pair.clerk.fails = True
    assert server.predict("m1", "m2").json() == before
    server.pair.idle()
    server.pair.clerk.fails, server.pair.clerk.gate = False, threading.Event()
    for _ in range(5):  # it hangs, and its line is full
        assert server.predict("m1", "m2").json() == before
    server.pair.desk.stop(timeout_s=0)  # it has gone
    assert server.predict("m1", "m2").json() == before


def test_what_came_of_it_is_in_meters_on_the_page_and_in_the_file(server: Server, tmp_path: Path) -> None:
    told = server.predict("m1", "m2").json()["answers"]
    server.pair.idle()
    lines = server.client.get("/metrics").text.splitlines()
    shas = [v.snapshot.sha[:12] for v in (server.pair.champion, version(server.pair.clerk, 2))]
    names = f'champion="{shas[0]}",shadow="{shas[1]}"'
    for line in (
        f"priorflow_shadow_compared_total{{{names}}} 2.0",
        f"priorflow_shadow_agreed_total{{{names}}} 2.0",
        f"priorflow_shadow_withheld_alike_total{{{names}}} 2.0",
        f"priorflow_shadow_delta_p_total{{{names}}} 0.0",
        f"priorflow_shadow_kl_nats_total{{{names}}} 0.0",
        "priorflow_shadow_dropped_total 0.0",
        "priorflow_shadow_failed_total 0.0",
    ):
        assert line in lines
    assert "100.0% agree" in server.client.get("/").text
    kept = [json.loads(line) for line in (tmp_path / "kept" / NAME).read_text().splitlines()]
    assert [row["prediction_id"] for row in kept] == [answer["prediction_id"] for answer in told]
    assert [event_of(row["prediction_id"]) for row in kept] == ["m1", "m2"]
    assert all(row["champion"]["snapshot"] != row["shadow"]["snapshot"] for row in kept)
    assert LONG not in (tmp_path / "kept" / NAME).read_text()


def test_the_file_is_bounded_and_holds_the_newest(tmp_path: Path) -> None:
    comparisons = Comparisons(tmp_path, most_bytes=1_500)
    for _ in range(40):
        comparisons.add(beside(1, 2, LONG))
    newest, before = (tmp_path / NAME).read_bytes(), (tmp_path / BEFORE).read_bytes()
    assert max(len(newest), len(before)) <= 1_500
    assert len(newest) + len(before) > 1_500
    for line in (*before.splitlines(), *newest.splitlines()):
        json.loads(line)
