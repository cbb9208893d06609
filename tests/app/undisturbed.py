"""A stream on the real Kafka, produced while lives are lived over it, and the run that nobody disturbed."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self, final

from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.letters import fold, original
from posterior.snapshot import Snapshot
from priorflow.config import load
from priorflow.opening import MLFLOW, registry
from tests.app import histories
from tests.app.encoders import small_encoder
from tests.app.histories import history, opened
from tests.app.lives import MID_TRAIN, Lives
from tests.app.traffic import FORMS, SETTINGS, Sent, Topics, Writer, positions, whole_topic

PHASES: Final = [
    "after-plan",
    MID_TRAIN,
    "after-train",
    "before-blob-rename",
    "before-ledger-commit",
    "before-acknowledge",
    "after-acknowledge",
]
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
        "gate.smoke": False,
        "gate.max_p99_ms": None,
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
