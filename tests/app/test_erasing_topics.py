"""What Kafka's topics hold of an erased event: told, and buried where a tombstone can."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from connectors.buried_letters import compact
from connectors.dead_letters import list_letters, records_of, requeue_letters
from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.kafka_topics import configure
from connectors.letters import REQUEUED, letter, original, read_letter
from priorflow.cli import call
from priorflow.cli_erasure import _in_kafka
from priorflow.config import Settings, load
from priorflow.console import JsonLines
from priorflow.erasing import Request
from priorflow.erasing_topics import in_topics
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal
from tests.connectors.former_letters import former_letter

NewTopic = Callable[..., str]
ASKED = Request(ids=("m1",), chain="main")


NOW_MS = time.time_ns() // 1_000_000
SAID = {
    0: (b"m1", b'{"id": "m1", "text": "Ada'),
    1: (b"m2", b'{"id": "m2", "text": "Bob'),
    2: (b"m1", b'{"id": "m1", "text": "Ada again'),
    3: (b"both", b'{"id": "m1", "text": "Ada once more'),
    4: (b"both", b'{"id": "m3", "text": "Cy'),
    5: (None, b'{"id": "m4", "text": "Dee'),
    6: (b"both", None),
}
"""What was said in words that cannot be read; m1 in three letters, of which one shares its key."""


def records(events: str) -> list[RawRecord]:
    return [RawRecord(Position(events, 0, n), 5, key, value) for n, (key, value) in SAID.items()]


def filed(kafka: KafkaClient, topic: str, events: str = "events", *, former: bool = False) -> None:
    """File what was said, the last of it twice."""
    with closing(KafkaSink(kafka)) as sink:
        for raw in (*records(events), records(events)[-1]):
            refused = Setaside(raw, Refusal("json", "not JSON"))
            sink.send_all([former_letter(raw, topic) if former else letter(refused, topic)])
        sink.flush()


def values(kafka: KafkaClient, topic: str) -> bytes:
    """Everything that a consumer of the topic is given, and when."""
    return b"|".join(
        part
        for raw in records_of(kafka, topic)
        for part in (raw.key or b"", raw.value or b"", *(value for _, value in raw.headers))
    )


def soon(kafka: KafkaClient, topic: str, gone: bytes) -> None:
    """Wait until compaction has taken every record with these bytes away: Kafka looks every 15 s."""
    end = time.monotonic() + 150
    while gone in values(kafka, topic):
        assert time.monotonic() < end, f"{topic} still holds {gone!r}"
        time.sleep(1)


def settings_for(kafka: KafkaClient, **topics: str) -> Settings:
    named = {f"kafka.topics.{kind}": name for kind, name in topics.items()}
    return load(overrides={"kafka.bootstrap": kafka.bootstrap, **named})


def looked(settings: Settings, *, write: bool = True) -> dict[str, dict[str, Any]]:
    return {row["topic"]: row for row in in_topics(settings, ASKED, write=write, now_ms=NOW_MS)}


def own(kafka: KafkaClient, new_topic: NewTopic) -> tuple[str, str]:
    """Make the two topics as we do; `new_topic` gives them names."""
    dead, late = f"{new_topic('dead')}.ours", f"{new_topic('late')}.ours"
    KafkaSink(kafka, dead_letters=dead, late=late).close()
    return dead, late


@pytest.mark.timeout(300)
def test_erased_no_record_of_our_topics_holds_the_text_and_no_other_letter_is_lost(
    kafka: KafkaClient, new_topic: NewTopic
) -> None:
    events = new_topic("events")
    dead, late = own(kafka, new_topic)
    filed(kafka, dead, events)
    requeue_letters(kafka, dead, [Position(events, 0, n) for n in (1, 4)])
    settings = settings_for(kafka, events=events, labels=events, dead_letters=dead, late=late)
    before = list_letters(kafka, dead)
    assert looked(settings, write=False)[dead]["buried"] == []
    assert b"Ada" in values(kafka, dead)
    row, again = looked(settings)[dead], looked(settings)[dead]
    assert row["letters"] == row["buried"] == [f"{dead}[0]@{n}" for n in (0, 2, 3)]
    assert (row["command"], row["left"]) == (None, "nothing but what compaction drops, within two hours")
    # The second time it stands already, or compaction came between.
    assert again in (row, {**row, "letters": [], "buried": [], "left": "nothing"})
    shown = [one for one in before if b"Ada" not in (SAID[one.position.offset][1] or b"")]
    assert list_letters(kafka, dead) == shown
    soon(kafka, dead, b"Ada")
    assert list_letters(kafka, dead) == shown
    assert [one.requeued for one in shown] == [one.position.offset in {1, 4} for one in shown]
    kept = [original(raw) for raw in records_of(kafka, dead) if _is_letter(raw)]
    assert kept == [raw for raw in records(events) if b"Ada" not in (raw.value or b"")]
    assert looked(settings)[dead]["letters"] == []


def _is_letter(raw: RawRecord) -> bool:
    known = read_letter(raw)
    return known is not None and known.stage != REQUEUED


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_a_topic_of_an_earlier_release_is_told_with_the_one_command_that_mends_it(
    kafka: KafkaClient, new_topic: NewTopic, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Letters share their records' keys there, or have none: compaction alone would take the wrong ones."""
    events = new_topic("events")
    dead, late = new_topic("dead"), new_topic("late")
    filed(kafka, dead, events, former=True)
    if policy == "compact":
        configure(kafka, dead, {"cleanup.policy": policy})
    named = {"events": events, "labels": events, "dead_letters": dead, "late": late}
    row = looked(settings := settings_for(kafka, **named))[dead]
    assert row["letters"] == [f"{dead}[0]@{n}" for n in (0, 2, 3)]
    assert row["buried"] == ([] if policy == "delete" else row["letters"][:2])
    assert row["command"] == "priorflow dlq compact"
    assert "`priorflow dlq compact` has it drop them" in row["left"]
    out = io.StringIO()
    assert not _in_kafka(settings, JsonLines(out), ASKED, dry_run=False)
    assert json.loads(out.getvalue().splitlines()[-1])["command"] == "priorflow dlq compact"
    assert "kafka-delete-records" in looked(settings)[events]["left"]
    shown = {one.position: one.requeued for one in list_letters(kafka, dead)}
    assert {at.offset for at in shown} == {1, 4, 5, 6}
    said = [*(f"kafka.topics.{kind}={name}" for kind, name in named.items())]
    said = [part for one in (f"kafka.bootstrap={kafka.bootstrap}", *said) for part in ("--set", one)]
    assert call(["dlq", "compact", *said]) == 0
    (told,) = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "anew" in line]
    assert (told["topic"], told["anew"]) == (dead, 5)
    soon(kafka, dead, b"Ada")
    assert {one.position: one.requeued for one in list_letters(kafka, dead)} == shown
    assert compact(kafka, dead, now_ms=NOW_MS) == 0
    row = looked(settings)[dead]
    assert (row["letters"], row["command"]) == ([], None)
    assert _in_kafka(settings, JsonLines(io.StringIO()), ASKED, dry_run=False)


def test_where_a_segment_cannot_be_ended_it_says_when_it_is(kafka: KafkaClient, new_topic: NewTopic) -> None:
    """A topic that an operator made: a week to a segment, and no time more than an hour ahead."""
    events, late = new_topic("events"), new_topic("late")
    week = {"segment_ms": "604800000", "message_timestamp_after_max_ms": "3600000"}
    dead = new_topic("dead", cleanup_policy="compact", **week)
    filed(kafka, dead, events)
    row = looked(settings_for(kafka, events=events, labels=events, dead_letters=dead, late=late))[dead]
    assert (row["buried"], row["command"]) == (row["letters"], None)
    assert "once a record comes that is 7d newer: erase again then" in row["left"]


def test_what_score_wrote_is_named_with_what_can_be_done(kafka: KafkaClient, new_topic: NewTopic) -> None:
    events, answers = new_topic("events"), new_topic("answers")
    shadow = new_topic("shadow", cleanup_policy="compact")
    settings = settings_for(
        kafka,
        events=events,
        labels=events,
        dead_letters=new_topic("dead"),
        late=new_topic("late"),
        answers=answers,
        shadow=shadow,
    )
    rows = looked(settings)
    assert "kafka-delete-records" in rows[answers]["left"]
    assert "tombstone" not in rows[answers]["left"]
    assert "a tombstone under its id has compaction drop it" in rows[shadow]["left"]


def test_an_archive_asks_no_cluster() -> None:
    assert in_topics(load(overrides={"source": "archive:x"}), ASKED, write=True, now_ms=0) == []
