"""Exactly once, on the real Kafka: a driver that is killed again and again leaves the undisturbed chain."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from connectors.kafka_client import KafkaClient
from tests.app.forked import with_fork_server
from tests.app.lives import MID_TRAIN, Lives
from tests.app.traffic import new_topics
from tests.app.undisturbed import (
    AHEAD,
    PHASES,
    Producer,
    a_stream,
    assert_as_if_undisturbed,
    consumed,
    said_of,
)

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EACH, EACH_IN_A_SOAK = 2, 5
_forks = pytest.fixture(scope="module", autouse=True)(with_fork_server)


@pytest.mark.timeout(900)
def test_killed_at_each_step_the_chain_is_the_undisturbed_one(
    kafka: KafkaClient, tmp_path: Path, soak: bool
) -> None:
    """Several times at each step, in any order, while records are still being produced."""
    rng, topics = random.Random(1), new_topics(kafka)
    each = EACH_IN_A_SOAK if soak else EACH
    said, stream = said_of(kafka, topics, tmp_path / "home"), a_stream(topics, 36 * each, seed=1)
    deaths = [*PHASES, "in-ledger-commit"] * each
    rng.shuffle(deaths)
    lives = Lives(said)
    with Producer(kafka, stream, seed=1) as producer:
        for step in deaths:
            producer.upto(consumed(said) + AHEAD)
            lives.dies_at(step, 2 if step == MID_TRAIN else rng.choice([1, 1, 2]))
    lives.ends()
    assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["after-train", "before-acknowledge"])
def test_a_driver_frozen_and_thawed_beside_its_successor_is_refused(
    kafka: KafkaClient, tmp_path: Path, step: str
) -> None:
    """Thawed, it would commit a window again, or take Kafka's positions back and go on from there."""
    topics = new_topics(kafka)
    said, stream = said_of(kafka, topics, tmp_path / "home"), a_stream(topics, 60, seed=4)
    lives = Lives(said)
    with Producer(kafka, stream, seed=4) as producer:
        producer.upto(len(stream))
        with lives.frozen_at(step, 3):
            producer.join()
            lives.ends(takeover=True)
    assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")
