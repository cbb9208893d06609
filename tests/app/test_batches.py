"""What comes of a batch: every text by itself, in time, and a model that fails at too many stops it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorflow.batches import Outcome, Pace, TooSlow, outcomes
from priorflow.serving.desk import Desk, Told
from stream.record import Event, Label, Position, RawRecord, Record, Refusal
from tests.app.serving.clerk import Clerk, version

WAIT_S = 10


@pytest.fixture
def clerk() -> Clerk:
    return Clerk("clerk", poison="boom")


@pytest.fixture
def desk(clerk: Clerk) -> Iterator[Desk]:
    made = Desk(most=64, patience_s=WAIT_S)
    made.start()
    made.offer(version(clerk)).result(WAIT_S)
    clerk.asked.clear()
    yield made
    made.stop()


def records(*bodies: str | Label | Refusal) -> list[Record]:
    """Return records that hold these texts."""
    found = []
    for offset, said in enumerate(bodies):
        raw = RawRecord(Position("events", 0, offset), 0, None, b"")
        body = Event(event_id=f"m{offset}", text=said, time_ms=0) if isinstance(said, str) else said
        found.append(Record(raw.position, "", body, raw))
    return found


def kinds(done: Sequence[Outcome]) -> str:
    """Write outcomes down: a for an answer, r for what was refused, - for neither."""
    return "".join(
        "a" if isinstance(one.said, Told) else "r" if isinstance(one.said, Refusal) else "-" for one in done
    )


@given(st.lists(st.sampled_from(["fine", "good", "boom", "boom boom"]), max_size=12))
def test_a_text_that_fails_costs_its_neighbours_nothing(texts: list[str]) -> None:
    clerk, desk = Clerk("clerk", poison="boom"), Desk(most=64, patience_s=WAIT_S)
    desk.start()
    desk.offer(version(clerk)).result(WAIT_S)
    done = list(outcomes(records(*texts), desk, within_s=WAIT_S))
    desk.stop()
    assert kinds(done) == "".join("r" if "boom" in text else "a" for text in texts)
    assert [one.record.position.offset for one in done] == list(range(len(texts)))
    for one, text in zip(done, texts, strict=True):
        if isinstance(one.said, Told):
            assert one.said.answers[0] == clerk.answer(text)


def test_the_refusal_says_what_failed_and_which_snapshot(desk: Desk) -> None:
    (one,) = outcomes(records("boom"), desk, within_s=WAIT_S)
    assert isinstance(one.said, Refusal)
    assert one.said.stage == "model"
    assert "RuntimeError: clerk cannot" in one.said.reason
    assert version(Clerk("clerk")).snapshot.sha in one.said.reason


def test_equal_texts_are_asked_once_and_what_is_no_text_is_not_asked(desk: Desk, clerk: Clerk) -> None:
    refused = Refusal("json", "no JSON")
    label = Label(event_id="m", label="long", time_ms=0)
    done = list(outcomes(records("a", refused, "a", label, "b"), desk, within_s=WAIT_S))
    assert kinds(done) == "ara-a"
    assert done[1].said is refused
    assert clerk.asked == ["a", "b"]


def test_a_batch_that_takes_too_long_is_put_back_and_a_text_alone_is_refused(
    desk: Desk, clerk: Clerk
) -> None:
    clerk.gate = threading.Event()
    with pytest.raises(TooSlow):
        list(outcomes(records("a", "b"), desk, within_s=0.05))
    (one,) = outcomes(records("a"), desk, within_s=0.05)
    assert one.said == Refusal("model", "no answer within 0 s")
    clerk.gate.set()
    assert kinds(list(outcomes(records("a", "b"), desk, within_s=WAIT_S))) == "aa"


class Late(Future[Told]):
    """One whose answer comes between the end of its time and the next look at it."""

    def result(self, timeout: float | None = None) -> Told:
        try:
            return super().result(timeout)
        except TimeoutError:
            self.set_result(Told(version(Clerk("late")), (Clerk("late").answer("a"),), 0.0))
            raise


def test_an_answer_that_comes_as_its_time_ends_is_no_letter(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Desk, "ask", lambda *_: Late())
    with pytest.raises(TooSlow):
        list(outcomes(records("a", "b"), desk, within_s=0.01))


def test_a_model_that_gives_up_by_its_own_clock_has_failed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: Future[Told] = Future()
    given.set_exception(TimeoutError("a kernel hung"))
    monkeypatch.setattr(Desk, "ask", lambda *_: given)
    (one, _) = outcomes(records("a", "b"), desk, within_s=WAIT_S)
    assert one.said == Refusal("model", "TimeoutError: a kernel hung")


seconds = st.floats(1e-6, 1e4)


@given(st.lists(seconds, min_size=1, max_size=40))
def test_a_pace_never_takes_more_than_fits_by_what_it_has_seen(each: list[float]) -> None:
    pace = Pace(most=64, within_s=30.0)
    for text_s in each:
        before = pace.at_once
        pace = pace.after(before, before * text_s)
        assert 1 <= pace.at_once <= min(64, 2 * before)
        assert pace.at_once == 1 or pace.at_once * text_s <= 30.0 * (1 + 1e-9)


@given(st.floats(1e-6, 30.0 / 64))
def test_a_pace_reaches_the_most_where_that_fits(text_s: float) -> None:
    pace = Pace(most=64, within_s=30.0)
    for _ in range(7):
        pace = pace.after(pace.at_once, pace.at_once * text_s)
    assert pace.at_once == 64


def test_nothing_taken_says_nothing_and_what_is_put_back_halves() -> None:
    pace = Pace(most=64, within_s=30.0, at_once=48)
    assert pace.after(0, 0.5) == pace
    sizes: list[int] = []
    while not sizes or sizes[-1] > 1:
        sizes.append(pace.at_once)
        pace = pace.halved()
    assert sizes == [48, 24, 12, 6, 3, 1]
    assert pace.halved().at_once == 1
