"""The page's tiles, beside a real Kafka: what they count is what lies on the topics."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from posterior.snapshot import Snapshot
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.page import page
from priorflow.run import execute
from stream.record import Position
from tests.app.histories import history
from tests.app.traffic import FORMS, SETTINGS, Sent, Topics, Writer, new_topics, positions

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(180)]
BETA = 0.75


@dataclass(frozen=True, slots=True)
class Seen:
    """A stream with bad records, of which two windows were learned, and the page after that."""

    stream: Sequence[Sent]
    head: Snapshot
    tiles: dict[str, str]
    settings: Settings

    def read(self, at: Position) -> bool:
        """Tell whether a record lies behind the head's positions."""
        (span,) = [s for s in self.head.spans if (s.topic, s.partition) == (at.topic, at.partition)]
        return at.offset < span.low or at.offset in span.beyond


@pytest.fixture(scope="module")
def seen(kafka: KafkaClient, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    topics = new_topics(kafka)
    writer = Writer(FORMS["cloudevents"], topics, random.Random(3))
    stream = writer.poisoned(writer.mails(130), each=1)
    settings = settings_of(kafka, topics, tmp_path_factory.mktemp("tiles"))
    with closing(KafkaSink(kafka)) as sink:
        sink.send_all(one.out for one in stream)
        sink.flush()
    execute(settings, max_windows=2, console=Silent())
    return Seen(stream, history(settings)[-1], tiles(page(settings)), settings)


def settings_of(kafka: KafkaClient, topics: Topics, home: Path) -> Settings:
    said: dict[str, Any] = {
        "home": str(home),
        "kafka.bootstrap": kafka.bootstrap,
        "window.size": 30,
        "learn.epochs": 1,
        "learn.beta": BETA,
        "mlflow.enabled": False,
        "gate.enabled": False,
    }
    return load(overrides={**SETTINGS, **topics.settings, **said})


def tiles(text: str) -> dict[str, str]:
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    return {unescape(name): unescape(value) for name, value in found}


def test_lag_is_what_lies_behind_the_last_position_read(seen: Seen) -> None:
    lows = {(s.topic, s.partition): s.low for s in seen.head.spans}
    behind = [at for at, _ in positions(seen.stream) if at.offset >= lows[at.topic, at.partition]]
    assert behind
    assert seen.tiles["Lag"] == f"{len(behind):,}"


def test_dead_letters_are_the_bad_records_that_were_read(seen: Seen) -> None:
    bad = [one for at, one in positions(seen.stream) if one.stage is not None and seen.read(at)]
    assert bad
    assert seen.tiles["Dead letters"] == f"{len(bad):,}"


def test_pending_are_good_records_that_were_read_and_are_in_no_window(seen: Seen) -> None:
    """Who came twice is in another account; the two windows took an event and a label for each of theirs."""
    good = [one for at, one in positions(seen.stream) if one.stage is None and seen.read(at)]
    twice = seen.head.counts["duplicate"]
    pending = len(good) - twice - 2 * 30 * 2
    assert pending > 0
    assert seen.tiles["Pending"] == f"{pending:,}"


def test_beta_is_that_of_the_last_window(seen: Seen) -> None:
    assert seen.tiles["Beta"] == f"{BETA:g}"


def test_where_the_topics_cannot_be_asked_lag_is_unknown_and_not_none(seen: Seen) -> None:
    away = seen.settings.kafka.model_copy(update={"bootstrap": "127.0.0.1:1"})
    told = tiles(page(seen.settings.model_copy(update={"kafka": away})))
    assert told == {**seen.tiles, "Lag": "unknown"}
