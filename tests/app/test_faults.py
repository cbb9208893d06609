"""Exactly once, on the real Kafka: a driver that is killed again and again leaves the undisturbed chain."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self, final

import pytest
import ray

from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.letters import fold, original
from connectors.mlflow_store import QUIET
from posterior.snapshot import Snapshot
from priorflow.config import load
from priorflow.opening import MLFLOW, registry
from tests.app import histories
from tests.app.encoders import small_encoder
from tests.app.histories import history, opened
from tests.app.lives import MID_TRAIN, Lives, start_fork_server
from tests.app.traffic import FORMS, SETTINGS, Sent, Topics, Writer, new_topics, positions, whole_topic

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PHASES: Final = [
    "after-plan",
    MID_TRAIN,
    "after-train",
    "before-blob-rename",
    "before-ledger-commit",
    "before-acknowledge",
    "after-acknowledge",
]
EACH: Final = 5
RANDOM_KILLS: Final = 50
AHEAD: Final = 120
"""Records on the topics that no commit has reached yet: enough for any one life."""


@final
class Producer(threading.Thread):
    """Sends a stream in small batches, never further than asked: `AHEAD` of what was consumed."""

    def __init__(self, kafka: KafkaClient, stream: Sequence[Sent], seed: int) -> None:
        super().__init__(name="producer")
        self._kafka, self._stream, self._rng = kafka, stream, random.Random(seed)
        self._changed, self._wanted = threading.Condition(), 0

    def upto(self, count: int) -> None:
        """Go on to so many records."""
        with self._changed:
            self._wanted = max(self._wanted, min(count, len(self._stream)))
            self._changed.notify_all()

    def run(self) -> None:
        sent = 0
        with closing(KafkaSink(self._kafka)) as sink:
            while sent < len(self._stream):
                with self._changed:
                    while self._wanted <= sent:
                        self._changed.wait()
                    batch = self._stream[sent : min(self._wanted, sent + self._rng.randint(1, 5))]
                    self._changed.wait(self._rng.uniform(0, 0.03))
                sink.send_all(one.out for one in batch)
                sink.flush()
                sent += len(batch)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.upto(len(self._stream))
        self.join()


@pytest.fixture(scope="module", autouse=True)
def _forks() -> None:
    with pytest.MonkeyPatch.context() as patch:
        # MLflow reads these when it is imported, Ray whether a cluster wants the user's token; tokenizers
        # whether to start threads, which a fork would lose.
        ours = {"RAY_AUTH_MODE": "token", "TOKENIZERS_PARALLELISM": "false"}
        for name, value in {**QUIET, **ours}.items():
            patch.setenv(name, value)
        start_fork_server()


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Ray that outlives its drivers, and so do their workers, for some seconds."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def said_of(kafka: KafkaClient, topics: Topics, home: Path, **more: Any) -> dict[str, Any]:
    """Return settings of small windows: two steps each, and rows between them where only positions move."""
    return {
        **SETTINGS,
        **topics.settings,
        "home": str(home),
        "kafka.bootstrap": kafka.bootstrap,
        "model.encoder": small_encoder(),
        "window.size": 6,
        "window.progress_every": 12,
        "learn.epochs": 1,
        "learn.batch": 3,
        "gate.min_labels": 2,
        "gate.min_labels_per_class": 1,
        "gate.min_recall": 0.0,
        "gate.max_ece": 1.0,
        "mlflow.enabled": False,
        **more,
    }


def a_stream(topics: Topics, count: int, seed: int) -> list[Sent]:
    """Return mails and labels with a few of everything that is wrong."""
    writer = Writer(FORMS["cloudevents"], topics, random.Random(seed))
    return writer.poisoned(writer.mails(count), each=1)


def consumed(said: dict[str, Any]) -> int:
    """Return how many records the chain has behind it."""
    settings = load(overrides=said)
    if not (settings.home_folder / "ledger.db").exists():
        return 0
    with opened(settings) as ledger:
        if ledger.chain("main") is None:
            return 0
        head = ledger.head("main")
    return head.counts["consumed"] if head is not None else 0


def assert_as_if_undisturbed(
    kafka: KafkaClient, said: dict[str, Any], stream: Sequence[Sent], home: Path
) -> list[Snapshot]:
    """Compare with a run in another home that nobody killed; check positions, accounts, letters."""
    settings = load(overrides=said)
    rows = history(settings)
    undisturbed = {
        **said,
        "home": str(home),
        "kafka.topics.dead_letters": f"{said['kafka.topics.dead_letters']}-2",
    }
    undisturbed |= {"mlflow.enabled": False, "gate.enabled": False}
    Lives(undisturbed).ends()
    assert [row.sha for row in rows] == [row.sha for row in history(load(overrides=undisturbed))]
    histories.assert_planned_without_gap_or_overlap(settings, rows)
    histories.assert_accounts_balance(rows)
    bad = {at: one.out for at, one in positions(stream) if one.stage is not None}
    assert sorted(place for row in rows for place in row.rejected) == sorted(map(str, bad))
    letters = whole_topic(kafka, settings.kafka.topics.dead_letters)
    assert fold(letters).keys() == bad.keys()
    for found in map(original, letters):
        assert (found.value, found.key) == (bad[found.position].value, bad[found.position].key)
    return rows


@pytest.mark.timeout(900)
def test_killed_at_each_step_the_chain_is_the_undisturbed_one(kafka: KafkaClient, tmp_path: Path) -> None:
    """`EACH` times at each step, in any order, while records are still being produced."""
    rng, topics = random.Random(1), new_topics(kafka)
    said, stream = said_of(kafka, topics, tmp_path / "home"), a_stream(topics, 180, seed=1)
    deaths = [*PHASES, "in-ledger-commit"] * EACH
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


@pytest.mark.mlflow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_killed_beside_its_workers_the_chain_is_the_undisturbed_one(
    kafka: KafkaClient, cluster: str, tmp_path: Path
) -> None:
    """Once at each step with a Ray Train worker, on a new MLflow store; the end is lived without Ray."""
    topics = new_topics(kafka)
    more = {"learn.epochs": 20, "mlflow.enabled": True}  # so many epochs that one can die while they last
    said, stream = said_of(kafka, topics, tmp_path / "home", **more), a_stream(topics, 70, seed=3)
    lives = Lives({**said, "learn.workers": 1}, cluster)
    with Producer(kafka, stream, seed=3) as producer:
        for step in PHASES:
            producer.upto(consumed(said) + AHEAD)
            lives.dies_at(step, 2 if step == MID_TRAIN else 1)
    assert len(history(load(overrides=said))) > 3  # rows that Ray had a part in
    Lives(said).ends()
    rows = assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")
    assert_versions_are_the_ledger(said, rows)


@pytest.mark.mlflow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_the_chain_is_the_undisturbed_one(
    kafka: KafkaClient, tmp_path: Path
) -> None:
    """From outside, at start-up too, while records are being produced and versions published."""
    rng, topics = random.Random(2), new_topics(kafka)
    said = said_of(kafka, topics, tmp_path / "home", **{"mlflow.enabled": True})
    stream, lives = a_stream(topics, 140, seed=2), Lives(said)
    registry(load(overrides=said)).version_of("none")  # has MLflow make its tables, which outlasts a life
    with Producer(kafka, stream, seed=2) as producer:
        for i in range(RANDOM_KILLS):
            producer.upto(consumed(said) + AHEAD)
            lives.is_killed(rng.randrange(20), then_s=rng.uniform(0, 1.0 if i % 6 == 0 else 0.05))
    lives.ends()
    rows = assert_as_if_undisturbed(kafka, said, stream, tmp_path / "undisturbed")
    assert_versions_are_the_ledger(said, rows)


def assert_versions_are_the_ledger(said: dict[str, Any], rows: Sequence[Snapshot]) -> None:
    """Every learned row is one version, which holds its bytes; aliases are what the decision log says."""
    settings = load(overrides=said)
    with opened(settings) as ledger, closing(registry(settings)) as models:
        learned = [row for row in rows if row.kind == "learned"]
        versions = [ledger.reference(row.sha, MLFLOW) for row in learned]
        assert versions == [models.version_of(row.sha) for row in learned]
        assert [models.fetch(version)[0] for version in versions if version] == learned
        assert not ledger.backlog(MLFLOW)
        log = ledger.decisions("main")
        champions = [line.snapshot for line in log if line.action == "promote"]
        assert champions
        # Whoever died, each window was heard once, in order, and no lagging alias was taken for a hand's.
        assert {line.actor for line in log} == {"gate"}
        heard = [line.evidence["case"]["heard"] for line in log]
        assert heard == sorted(set(heard))
        unheard = [window for line in log for window in line.evidence.get("unheard", ())]
        assert unheard == []
        assert models.aliases()["champion"] == models.version_of(champions[-1])
        assert models.aliases()["candidate"] == versions[-1]
        every = models._client.search_model_versions("name = 'priorflow'", max_results=1000)
        canonical = [v.tags["snapshot_sha"] for v in every if "duplicate_of" not in v.tags]
        assert sorted(canonical) == sorted(row.sha for row in learned)
