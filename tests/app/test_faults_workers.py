"""A driver that is killed beside its Ray workers leaves the undisturbed chain too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import ray

from connectors.kafka_client import KafkaClient
from priorflow.config import load
from tests.app.forked import with_fork_server
from tests.app.histories import history
from tests.app.lives import MID_TRAIN, Lives
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

pytestmark = [pytest.mark.kafka, pytest.mark.mlflow, pytest.mark.ray, pytest.mark.slow]

# Where a worker may outlive its driver: starting up, at work, having just answered, its answer a row already.
STEPS: Final = (MID_TRAIN, "before-acknowledge")
MORE_IN_A_SOAK: Final = ("after-plan", "after-train")
_forks = pytest.fixture(scope="module", autouse=True)(with_fork_server)


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Ray that outlives its drivers, and so do their workers, for some seconds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@pytest.mark.timeout(900)
def test_killed_beside_its_workers_the_chain_is_the_undisturbed_one(
    kafka: KafkaClient, cluster: str, tmp_path: Path, soak: bool
) -> None:
    """At steps that a worker may see, on a new MLflow store; the end is lived without Ray.

    Each step of all, without workers, is for test_faults.
    """
    topics = new_topics(kafka)
    more = {"learn.epochs": 20, "mlflow.enabled": True}  # so many epochs that one can die while they last
    said, stream = said_of(kafka, topics, tmp_path / "home", **more), a_stream(topics, 40, seed=3)
    lives = Lives({**said, "learn.workers": 1}, cluster)
    with Producer(kafka, stream, seed=3) as producer:
        for step in (*STEPS, *(MORE_IN_A_SOAK if soak else ())):
            producer.upto(consumed(said) + AHEAD)
            lives.dies_at(step, 2 if step == MID_TRAIN else 1)
    assert len(history(load(overrides=said))) > 1  # rows that Ray had a part in
    Lives(said).ends()
    rows = assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")
    assert_versions_are_the_ledger(said, rows)
