"""Every record is answered exactly once, for readers of what is committed: through deaths and rebalances."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from connectors.kafka_client import KafkaClient, TopicWish
from connectors.kafka_exchange import ExchangeRules, KafkaExchange, Undone
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.letters import Outgoing

NewTopic = Callable[..., str]
LIMIT_S = 90
MANY = 60


def produce(kafka: KafkaClient, topic: str, count: int, first: int = 0) -> None:
    sink = KafkaSink(kafka)
    for i in range(first, first + count):
        sink.send(topic, f"mail {i}".encode(), key=str(i).encode())
    sink.flush()
    sink.close()


OPEN_S = 4  # how long a dead member's transaction may hide what comes after it


def answered(kafka: KafkaClient, topic: str, *, after_s: float = 0) -> Counter[bytes | None]:
    """Count what a reader of committed records sees, by value."""
    time.sleep(after_s)
    source = KafkaSource(kafka, KafkaSourceRules(topics=(topic,)))
    source.seek({})
    seen = Counter[bytes | None]()
    while not all(source.at_end(p) for p in source.partitions()):
        seen.update(raw.value for raw in source.poll(timeout_ms=50, max_records=500))
    source.close()
    return seen


def once(count: int) -> Counter[bytes | None]:
    return Counter({f"MAIL {i}".encode(): 1 for i in range(count)})


class Party:
    """A topic to answer, a topic for answers, and a group of their own."""

    def __init__(self, kafka: KafkaClient, new_topic: NewTopic) -> None:
        self.kafka = kafka
        self.source, self.answers = new_topic("asked", 3), new_topic("answers", 2)
        self.group = f"group-{uuid.uuid4().hex[:8]}"

    def member(self, *, session_ms: int = 3_000) -> KafkaExchange:
        rules = ExchangeRules(
            topics=(self.source,),
            writes=(TopicWish(name=self.answers),),
            group=self.group,
            session_ms=session_ms,
        )
        return KafkaExchange(self.kafka, rules)

    def process(self, step: str = "", at: int = 0) -> subprocess.Popen[bytes]:
        module = "tests.connectors.exchange_process"
        said = (self.kafka.bootstrap, self.source, self.answers, self.group, step, str(at))
        return subprocess.Popen([sys.executable, "-m", module, *said])

    def capitals(self, member: KafkaExchange) -> int:
        """Answer one batch in capitals; return how many were taken."""
        records = member.take(timeout_ms=200, max_records=7)
        member.give(
            [Outgoing(topic=self.answers, key=r.key, value=(r.value or b"").upper()) for r in records]
        )
        return len(records)


@pytest.fixture
def party(kafka: KafkaClient, new_topic: NewTopic) -> Party:
    return Party(kafka, new_topic)


def within_limit(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline


def test_alone(party: Party) -> None:
    produce(party.kafka, party.source, MANY)
    member = party.member()
    within_limit(lambda: not party.capitals(member) and member.at_end())
    assert answered(party.kafka, party.answers) == once(MANY)
    assert len(member.ours()) == 3
    member.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["after-send", "after-positions", "after-commit"])
def test_killed_at_each_step_nothing_is_answered_twice_or_never(party: Party, step: str) -> None:
    produce(party.kafka, party.source, MANY)
    assert party.process(step, at=2).wait(LIMIT_S) < 0
    assert party.process().wait(LIMIT_S) == 0
    assert answered(party.kafka, party.answers, after_s=OPEN_S) == once(MANY)


@pytest.mark.slow
def test_killed_at_random_moments_beside_others_while_records_come(party: Party) -> None:
    """Four members, three of which are killed, share the partitions by turns."""
    produce(party.kafka, party.source, MANY)
    living = party.process()
    for turn in range(1, 4):
        dying = party.process("after-send", at=turn)
        produce(party.kafka, party.source, MANY, first=turn * MANY)
        time.sleep(2 + turn / 3)
        dying.kill()
        dying.wait(LIMIT_S)
    living.wait(LIMIT_S)
    assert party.process().wait(LIMIT_S) == 0
    assert answered(party.kafka, party.answers, after_s=OPEN_S) == once(4 * MANY)


def test_who_lost_its_partitions_may_not_commit_what_it_took(party: Party) -> None:
    """It slept with records in hand; another took them over and answered."""
    produce(party.kafka, party.source, MANY)
    rules = ExchangeRules(
        topics=(party.source,),
        writes=(TopicWish(name=party.answers),),
        group=party.group,
        hold_ms=1_500,
        session_ms=1_500,
    )
    sleeper, other = KafkaExchange(party.kafka, rules), party.member()
    taken = list[str]()

    def take() -> bool:
        taken.extend((r.value or b"").decode() for r in sleeper.take(timeout_ms=200, max_records=9))
        return bool(taken)

    within_limit(take)
    within_limit(lambda: not party.capitals(other) and len(other.ours()) == 3 and other.at_end())
    with pytest.raises(Undone):
        sleeper.give([Outgoing(topic=party.answers, value=text.upper().encode()) for text in taken])
    assert answered(party.kafka, party.answers) == once(MANY)
    sleeper.close()
    other.close()


def test_two_members_share_and_one_that_leaves_hands_over(party: Party) -> None:
    one, two = party.member(), party.member()
    produce(party.kafka, party.source, MANY)

    def both() -> bool:
        for member in (one, two):
            try:
                party.capitals(member)
            except Undone:
                continue
        return bool(one.ours()) and bool(two.ours())

    within_limit(both)
    assert not set(one.ours()) & set(two.ours())
    one.close()
    produce(party.kafka, party.source, MANY, first=MANY)
    within_limit(lambda: not party.capitals(two) and len(two.ours()) == 3 and two.at_end())
    assert answered(party.kafka, party.answers) == once(2 * MANY)
    two.close()
