"""Decisions told outside: each that says something new, in order, at least once, whatever dies or is away."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.blobs import MemoryBlobs
from connectors.decision_events import MEDIA_TYPE, event, worth_telling
from connectors.decision_log import line_hash
from connectors.herald import Herald, begin, heard
from connectors.ledger import open_ledger
from connectors.memory_ledger import MemoryLedger
from connectors.rounds import Pace
from connectors.webhook import SIGNATURE, Undelivered, Webhook, signature
from posterior.snapshot import Action, Decision, Ledger, Snapshot
from tests.connectors.chain_builder import Writer
from tests.connectors.receiver import Receiver, receiving

QUICK = Pace(idle_s=0.01, first_wait_s=0.001, longest_wait_s=0.01)
PATIENT_S = 20.0
WRONG: dict[str, Any] = {
    "gates": [{"gate": "recall", "verdict": "fail", "line": "lost", "numbers": {"worst": 0.0}}]
}


class Died(Exception):
    pass


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    blobs = MemoryBlobs()
    made: Ledger = MemoryLedger(blobs)
    if request.param == "sqlite":
        made = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    writer = Writer.on_new_chain(made, blobs)
    for _ in range(3):
        writer.learn()
    yield made
    made.close()


@pytest.fixture
def rows(ledger: Ledger) -> Sequence[Snapshot]:
    return ledger.history("main")[1:]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def decide(ledger: Ledger, action: Action, row: Snapshot, at_ms: int = 1, **evidence: Any) -> Decision:
    return ledger.decide(
        "main", at_ms=at_ms, actor="gate", action=action, snapshot=row.sha, evidence=evidence
    )


@contextmanager
def telling(
    ledger: Ledger, post: Callable[[bytes], None], *, crash: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[Herald, list[str | None]]]:
    told: list[str | None] = []
    herald = Herald(ledger, post, chain="main", pace=QUICK, tell=told.append, crash=crash)
    herald.start()
    try:
        yield herald, told
    finally:
        assert herald.stop(PATIENT_S)


def hook(receiver: Receiver, **more: Any) -> Callable[[bytes], None]:
    return Webhook(receiver.url, media_type=MEDIA_TYPE, **more).post


def test_a_decision_arrives_as_a_cloudevent_that_can_be_checked(
    ledger: Ledger, rows: Sequence[Snapshot], receiver: Receiver
) -> None:
    begin(ledger, "main")
    line = decide(ledger, "promote", rows[0], at_ms=1_700_000_000_123, gates=[{"numbers": {"ece": 0.25}}])
    with telling(ledger, hook(receiver, secret="k3y")) as (herald, _):
        assert herald.flush(PATIENT_S)
    ((body, headers),) = receiver.posts
    said = json.loads(body)
    data = said.pop("data")
    assert said == {
        "specversion": "1.0",
        "id": line.hash,
        "source": "/priorflow/chains/main",
        "type": "io.priorflow.decision.promoted",
        "subject": rows[0].sha,
        "time": "2023-11-14T22:13:20.123Z",
        "datacontenttype": "application/json",
    }
    assert data["evidence"]["gates"][0]["numbers"] == {"ece": 0.25}
    assert line_hash(Decision(**data)) == line.hash
    assert headers["content-type"] == MEDIA_TYPE
    assert headers[SIGNATURE.lower()] == signature(b"k3y", body)


def test_what_is_told_and_what_is_not(ledger: Ledger, rows: Sequence[Snapshot], receiver: Receiver) -> None:
    begin(ledger, "main")
    other = {"gates": [{"gate": "calibration", "verdict": "fail"}]}
    for action, evidence in (
        ("wait", {}),
        ("promote", {}),
        ("refuse", WRONG),
        ("wait", {}),
        ("refuse", WRONG),  # the same again
        ("refuse", other),
        ("rollback", {}),
        ("refuse", other),  # after a rollback it is news
        ("wait", {}),
    ):
        decide(ledger, action, rows[0], **evidence)  # type: ignore[arg-type] # actions, as written above
    with telling(ledger, hook(receiver)) as (herald, _):
        assert herald.flush(PATIENT_S)
    kinds = [e["type"].rpartition(".")[2] for e in receiver.events]
    assert kinds == ["promoted", "refused", "refused", "rolledback", "refused"]
    assert [e["data"]["seq"] for e in receiver.events] == [1, 2, 5, 6, 7]
    state = heard(ledger, "main")
    assert state is not None
    assert (state.waiting, state.error) == (0, None)


def test_a_receiver_that_is_away_makes_them_wait_in_order(
    ledger: Ledger, rows: Sequence[Snapshot], receiver: Receiver
) -> None:
    begin(ledger, "main")
    lines = [decide(ledger, "promote", row) for row in rows]
    receiver.says = [503, 302, 500, 404, 429]
    with telling(ledger, hook(receiver)) as (herald, told):
        assert herald.flush(PATIENT_S)
    assert [e["id"] for e in receiver.events] == [line.hash for line in lines]  # and no redirect was followed
    assert receiver.tried == 5 + len(lines)
    assert told == [*[f"webhook http://127.0.0.1 answered {s}" for s in (503, 302, 500, 404, 429)], None]


def test_nobody_listening_is_told_and_kept_in_the_ledger(ledger: Ledger, rows: Sequence[Snapshot]) -> None:
    begin(ledger, "main")
    with receiving() as gone:
        pass
    decide(ledger, "promote", rows[0])
    with telling(ledger, hook(gone)) as (herald, told):
        assert not herald.flush(0.2)
        state = heard(ledger, "main")
        assert state is not None
        assert state.waiting == 1
        assert "127.0.0.1 cannot be reached" in str(state.error)
        assert "s3cret" not in str(told) + str(state.error)
        assert len(told) == 1  # once, however many attempts failed
        with receiving(gone.port) as back:
            assert herald.flush(PATIENT_S)
            assert len(back.events) == 1
    assert heard(ledger, "main") == replace(state, waiting=0, error=None)


def test_a_receiver_that_hangs_is_given_up(receiver: Receiver) -> None:
    receiver.slow_s = 1.0
    with pytest.raises(Undelivered, match="cannot be reached"):
        hook(receiver, timeout_s=0.05)(b"{}")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/x", "https://", "nothing"])
def test_only_http_is_a_webhook(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        Webhook(url, media_type=MEDIA_TYPE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("step", "times"), [("before-post", 1), ("before-noted", 2)])
def test_who_dies_in_between_sends_the_same_again(
    ledger: Ledger, rows: Sequence[Snapshot], receiver: Receiver, step: str, times: int
) -> None:
    begin(ledger, "main")
    first, second = (decide(ledger, "promote", row) for row in rows[:2])

    def crash(here: str) -> None:
        if here == step:
            raise Died

    with telling(ledger, hook(receiver), crash=crash) as (herald, _):
        assert not herald.flush(PATIENT_S)
    with telling(ledger, hook(receiver)) as (herald, _):
        assert herald.flush(PATIENT_S)
    assert [e["id"] for e in receiver.events] == [*[first.hash] * times, second.hash]
    assert len({body for body, _ in receiver.posts}) == 2  # the same bytes, so the same signature


def test_of_two_who_tell_at_once_the_late_one_moves_nothing_back(
    ledger: Ledger, rows: Sequence[Snapshot]
) -> None:
    """A run is held up at its first line; a command tells all of them meanwhile."""
    begin(ledger, "main")
    lines = [decide(ledger, "promote", row) for row in rows]
    taken, held, go_on = list[bytes](), threading.Event(), threading.Event()

    def slow(body: bytes) -> None:
        held.set()
        assert go_on.wait(PATIENT_S)
        taken.append(body)

    with telling(ledger, slow) as (run, _):
        assert held.wait(PATIENT_S)
        with telling(ledger, taken.append) as (command, _):
            assert command.flush(PATIENT_S)
        assert begin(ledger, "main") == len(lines)
        go_on.set()
        assert run.flush(PATIENT_S)
    assert begin(ledger, "main") == len(lines)
    assert taken == [event(line) for line in (*lines, lines[0])]


def test_what_one_failed_at_and_the_other_told_is_no_trouble(
    ledger: Ledger, rows: Sequence[Snapshot]
) -> None:
    begin(ledger, "main")
    decide(ledger, "promote", rows[0])
    held, go_on = threading.Event(), threading.Event()

    def refusing(_: bytes) -> None:
        held.set()
        assert go_on.wait(PATIENT_S)
        msg = "not now"
        raise Undelivered(msg)

    with telling(ledger, refusing) as (run, _):
        assert held.wait(PATIENT_S)
        with telling(ledger, lambda _: None) as (command, _):
            assert command.flush(PATIENT_S)
        go_on.set()
        assert run.flush(PATIENT_S)
    state = heard(ledger, "main")
    assert state is not None
    assert (state.waiting, state.error) == (0, None)


def test_a_new_receiver_hears_who_is_in_charge_and_what_follows(
    ledger: Ledger, rows: Sequence[Snapshot], receiver: Receiver
) -> None:
    for row in rows:
        decide(ledger, "promote", row)
    decide(ledger, "refuse", rows[0], **WRONG)
    with telling(ledger, hook(receiver)) as (herald, _):
        assert herald.flush(PATIENT_S)
        decide(ledger, "rollback", rows[1])
        assert herald.flush(PATIENT_S)
    assert [e["data"]["seq"] for e in receiver.events] == [2, 3, 4]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@given(
    actions=st.lists(st.sampled_from(["promote", "refuse", "wait", "rollback"]), max_size=12),
    refusals=st.lists(st.booleans(), max_size=6),
    deaths=st.lists(
        st.tuples(st.sampled_from(["before-post", "before-noted"]), st.integers(1, 5)), max_size=3
    ),
)
def test_whoever_dies_and_whatever_is_refused_each_is_heard_in_order(
    actions: list[Action], refusals: list[bool], deaths: list[tuple[str, int]]
) -> None:
    blobs = MemoryBlobs()
    ledger = MemoryLedger(blobs)
    row = Writer.on_new_chain(ledger, blobs).learn()
    begin(ledger, "main")
    for action in actions:
        decide(ledger, action, row)
    taken, weather = list[bytes](), iter(refusals)

    def post(body: bytes) -> None:
        if next(weather, False):
            msg = "not now"
            raise Undelivered(msg)
        taken.append(body)

    for step, after in deaths:
        count = itertools.count(1)

        def crash(here: str, step: str = step, after: int = after, count: Iterator[int] = count) -> None:
            if here == step and next(count) == after:
                raise Died

        with telling(ledger, post, crash=crash) as (herald, _):
            herald.flush(PATIENT_S)
    with telling(ledger, post) as (herald, _):
        assert herald.flush(PATIENT_S)
    log = ledger.decisions("main")
    wanted = [event(line) for line in log if worth_telling(log, line.seq)]
    assert list(dict.fromkeys(taken)) == wanted
    assert len(taken) <= len(wanted) + len(deaths)
