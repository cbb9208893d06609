"""What `score` does with a batch, on an exchange whose transactions a test undoes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from connectors.codec import event_record
from connectors.kafka_exchange import KafkaExchange, Undone
from connectors.letters import Outgoing
from priorflow.config import load
from priorflow.console import Silent
from priorflow.scoring import _Scorer
from priorflow.serving.comparing import Beside
from stream.record import Event, Position, RawRecord
from tests.app.serving.test_shadow import Pair

NAMES = [f"m{i}" for i in range(3)]


class Exchange:
    """Gives a batch again until a transaction holds: the first `undone` do not."""

    def __init__(self, topic: str, undone: int) -> None:
        self.topic, self.undone, self.given = topic, undone, list[Outgoing]()

    def take(self, **_: Any) -> list[RawRecord]:
        return [] if self.given else [self._raw(i, name) for i, name in enumerate(NAMES)]

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
        scorer = _Scorer(settings, Silent(), desk, pair.shadow, cast("KafkaExchange", exchange))
        for _ in range(undone):
            assert scorer._batch() is None
            pair.idle()
            assert (heard, scorer.count) == ([], 0)
        assert scorer._batch() == len(NAMES)
    pair.idle()
    assert [(one.event_id, one.champion.answer.label) for one in heard] == [(n, "short") for n in NAMES]
    assert [out.key for out in exchange.given] == [name.encode() for name in NAMES]
    assert scorer.count == len(NAMES)
