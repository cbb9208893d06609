"""What Kafka's topics hold of an erased event: told, and buried where a tombstone can."""

from __future__ import annotations

from collections.abc import Callable

from connectors.dead_letters import list_letters
from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.kafka_topics import topic_facts
from connectors.letters import letter
from priorflow.config import Settings, load
from priorflow.erasing import Request
from priorflow.erasing_topics import in_topics
from stream.plan import Setaside
from stream.record import Position, RawRecord, Refusal

NewTopic = Callable[..., str]
ASKED = Request(ids=("m1",), chain="main")


def aside(offset: int, key: bytes, value: bytes) -> Setaside:
    return Setaside(RawRecord(Position("events", 0, offset), 5, key, value), Refusal("json", "not JSON"))


def filed(kafka: KafkaClient, topic: str) -> None:
    """File what three people said, in words that cannot be read; m1 is in two letters of one key."""
    sink = KafkaSink(kafka)
    letters = [
        aside(0, b"m1", b'{"id": "m1", "text": "Ada'),
        aside(1, b"m2", b'{"id": "m2", "text": "Bob'),
        aside(2, b"m1", b'{"id": "m1", "text": "Ada again'),
        aside(3, b"both", b'{"id": "m1", "text": "Ada once more'),
        aside(4, b"both", b'{"id": "m3", "text": "Cy'),
    ]
    sink.send_all(letter(one, topic) for one in letters)
    sink.flush()
    sink.close()


def settings_for(kafka: KafkaClient, **topics: str) -> Settings:
    named = {f"kafka.topics.{kind}": name for kind, name in topics.items()}
    return load(overrides={"kafka.bootstrap": kafka.bootstrap, **named})


def test_letters_are_named_and_kept_where_no_tombstone_can_help(
    kafka: KafkaClient, new_topic: NewTopic
) -> None:
    events, dead = new_topic("events"), new_topic("dead")
    filed(kafka, dead)
    settings = settings_for(kafka, events=events, labels=events, dead_letters=dead, late=new_topic("late"))
    rows = {row["topic"]: row for row in in_topics(settings, ASKED, write=True)}
    assert rows[dead]["letters"] == [f"{dead}[0]@{n}" for n in (0, 2, 3)]
    assert rows[dead]["buried"] == []
    assert "kept for ever" in rows[dead]["left"]
    assert "kafka-delete-records" in rows[events]["left"]
    assert len(list_letters(kafka, dead)) == 5


def test_a_compacted_topic_gets_one_tombstone_for_a_key_that_is_theirs_alone(
    kafka: KafkaClient, new_topic: NewTopic
) -> None:
    events, dead = new_topic("events"), new_topic("dead", cleanup_policy="compact")
    filed(kafka, dead)
    settings = settings_for(kafka, events=events, labels=events, dead_letters=dead, late=new_topic("late"))
    looked = {row["topic"]: row for row in in_topics(settings, ASKED, write=False)}
    assert looked[dead]["buried"] == []
    for _ in range(2):  # the second time it stands already
        rows = {row["topic"]: row for row in in_topics(settings, ASKED, write=True)}
        assert rows[dead]["buried"] == [f"{dead}[0]@{n}" for n in (0, 2)]
        assert f"{dead}[0]@3" in rows[dead]["left"]
    assert _ends(kafka, dead) == 6


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
    rows = {row["topic"]: row for row in in_topics(settings, ASKED, write=True)}
    assert "kafka-delete-records" in rows[answers]["left"]
    assert "tombstone" not in rows[answers]["left"]
    assert "a tombstone under its id has compaction drop it" in rows[shadow]["left"]


def _ends(kafka: KafkaClient, topic: str) -> int:
    return topic_facts(kafka, [topic])[topic].next[0]


def test_an_archive_asks_no_cluster() -> None:
    assert in_topics(load(overrides={"source": "archive:x"}), ASKED, write=True) == []
