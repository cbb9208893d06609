"""Killed at any moment, versions being published: the undisturbed chain, and the registry says the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from connectors.kafka_client import KafkaClient
from priorflow.config import load
from priorflow.opening import registry
from tests.app.forked import with_fork_server
from tests.app.lives import Lives
from tests.app.traffic import new_topics
from tests.app.undisturbed import (
    AHEAD,
    Producer,
    a_stream,
    assert_as_if_undisturbed,
    assert_versions_are_the_ledger,
    consumed,
    said_of,
)

pytestmark = [pytest.mark.kafka, pytest.mark.mlflow, pytest.mark.slow]

KILLS, KILLS_IN_A_SOAK = 15, 50
_forks = pytest.fixture(scope="module", autouse=True)(with_fork_server)


@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_chain_is_the_undisturbed_one(
    kafka: KafkaClient, tmp_path: Path, soak: bool
) -> None:
    """From outside, at start-up too, while records are being produced and versions published."""
    rng, topics = random.Random(2), new_topics(kafka)
    said = said_of(kafka, topics, tmp_path / "home", **{"mlflow.enabled": True})
    kills = KILLS_IN_A_SOAK if soak else KILLS
    stream, lives = a_stream(topics, 20 + 3 * kills, seed=2), Lives(said)
    registry(load(overrides=said)).version_of("none")  # has MLflow make its tables, which outlasts a life
    with Producer(kafka, stream, seed=2) as producer:
        for i in range(kills):
            producer.upto(consumed(said) + AHEAD)
            lives.is_killed(rng.randrange(20), then_s=rng.uniform(0, 1.0 if i % 6 == 0 else 0.05))
    lives.ends()
    rows = assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")
    assert_versions_are_the_ledger(said, rows)
