"""What `score` does with a batch, on an exchange whose transactions a test undoes, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.blobs import open_blobs
from connectors.codec import event_record
from connectors.kafka_exchange import KafkaExchange, Undone
from connectors.ledger import open_ledger
from connectors.letters import Outgoing
from posterior.snapshot import Erasure
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.passing_over import PassingOver
from priorflow.scoring import _Scorer
from priorflow.serving.comparing import Beside
from priorflow.serving.desk import Desk
from stream.erasure import NOTHING, LeftOut, named
from stream.record import Event, Position, RawRecord
from tests.app.serving.test_shadow import Pair
from tests.app.streams import small_settings
from tests.connectors.chain_builder import CIRCUMSTANCE, Writer
from trainers.line import on_top

NAMES = [f"m{i}" for i in range(3)]
TORN = b'{"id": "m2", "text": "text m2'
ALL = len(NAMES) + 1


class Exchange:
    """Gives a batch again until a transaction holds: the first `undone` do not.

    Behind the batch's events comes a record of the last one that nobody can read.
    """

    def __init__(self, topic: str, undone: int = 0) -> None:
        self.topic, self.undone, self.given = topic, undone, list[Outgoing]()

    def take(self, **_: Any) -> list[RawRecord]:
        events = [self._raw(i, name) for i, name in enumerate(NAMES)]
        bad = RawRecord(Position(self.topic, 0, len(NAMES)), 10**12, None, TORN)
        return [] if self.given else [*events, bad]

    def give(self, written: list[Outgoing]) -> None:
        if self.undone:
            self.undone -= 1
            msg = "another member has these partitions now"
            raise Undone(msg)
        self.given += written

    def _raw(self, offset: int, name: str) -> RawRecord:
        value, headers = event_record(Event(event_id=name, text=f"text {name}", time_ms=10**12), source="t")
        return RawRecord(Position(self.topic, 0, offset), 10**12, name.encode(), value, tuple(headers))


@pytest.fixture
def heard() -> list[Beside]:
    return []


@pytest.fixture
def pair(heard: list[Beside]) -> Iterator[Pair]:
    made = Pair(heard.append)
    yield made
    made.desk.stop()


@pytest.mark.parametrize("undone", [0, 1, 3])
def test_a_shadow_sees_what_was_answered_and_nothing_of_what_was_undone(
    pair: Pair, heard: list[Beside], undone: int
) -> None:
    """An undone batch comes again: seen each time, it would be compared more often than answered."""
    settings = load(None)
    exchange = Exchange(settings.kafka.topics.events, undone)
    with pair.answering() as desk:
        scorer = a_scorer(settings, desk, pair, exchange)
        for _ in range(undone):
            assert scorer._batch(NOTHING) is None
            pair.idle()
            assert (heard, scorer.count) == ([], 0)
        assert scorer._batch(NOTHING) == ALL
    pair.idle()
    assert [(one.event_id, one.champion.answer.label) for one in heard] == [(n, "short") for n in NAMES]
    assert [out.key for out in exchange.given] == [
        *(name.encode() for name in NAMES),
        f"{settings.kafka.topics.events}[0]@3".encode(),
    ]
    assert exchange.given[-1].value == TORN
    assert scorer.count == len(NAMES)


def a_scorer(settings: Settings, desk: Desk, pair: Pair, exchange: Exchange) -> _Scorer:
    return _Scorer(
        settings, Silent(), desk, pair.shadow, cast("KafkaExchange", exchange), gone=lambda: NOTHING
    )


def test_what_was_erased_is_neither_answered_nor_shown_to_a_shadow_nor_filed(
    pair: Pair, heard: list[Beside]
) -> None:
    """The log holds its text still; of a record of it that cannot be read, a letter keeps the place alone."""
    settings = load(None)
    exchange = Exchange(settings.kafka.topics.events)
    with pair.answering() as desk:
        scorer = a_scorer(settings, desk, pair, exchange)
        assert scorer._batch(LeftOut(frozenset({named("m2")}))) == ALL
    pair.idle()
    assert [one.event_id for one in heard] == ["m0", "m1"]
    *answers, filed = exchange.given
    assert [out.key for out in answers] == [b"m0", b"m1"]
    assert (filed.topic, filed.value) == (settings.kafka.topics.dead_letters, b"")
    assert b"m2" not in b"".join(value for _, value in filed.headers)
    assert scorer.count == 2


def test_what_any_chain_on_the_topic_has_forgotten_is_passed_over(tmp_path: Path) -> None:
    """Looked up anew each time; while the ledger cannot be asked, what was last known counts."""
    settings = small_settings(tmp_path, None, **{"kafka.topics.events": "events"})
    with closing(PassingOver(settings, Silent())) as over:
        assert over.now() == NOTHING  # no ledger on this host: the registry alone names a champion
        blobs = open_blobs(settings.blobs_url)
        with closing(open_ledger(settings.ledger_url, blobs)) as ledger:
            for gone, chain in enumerate(["main", "beside"], start=1):
                writer = Writer.on_new_chain(ledger, blobs, chain)
                forget(writer, f"m{gone}")
                assert over.now() == LeftOut(frozenset(named(f"m{i}") for i in range(1, gone + 1)))
        over.close()
        for file in tmp_path.glob("ledger.db*"):
            file.write_bytes(b"no database" * 1000)
        assert over.now() == LeftOut(frozenset({named("m1"), named("m2")}))
    with closing(PassingOver(settings, Silent())) as over:
        assert over.now() is None  # nobody knows what may be answered


def forget(writer: Writer, event_id: str) -> None:
    row = on_top(writer.head, "erased", report={})
    gone = Erasure(chain=row.chain, what=named(event_id), instead=None, row=row.sha, seq=row.seq)
    writer.ledger.commit(writer.fence, row, CIRCUMSTANCE, erased=[gone])
