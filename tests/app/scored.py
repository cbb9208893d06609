"""What tests of `priorflow score` on a real Kafka share: events in, answers out, and processes in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, final

from kafka import KafkaConsumer, TopicPartition

from connectors.blobs import open_blobs
from connectors.codec import event_record
from connectors.kafka_client import KafkaClient
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.ledger import open_ledger
from posterior.snapshot import Action
from priorflow.config import Settings
from stream.record import Event, RawRecord
from tests.app.streams import EVENTS

LIMIT_S: Final = 120
EACH: Final = 3  # events that come together
PAUSE_S: Final = 0.5  # and until the next come: few enough for a busy machine
HOLD_S: Final = 0.3  # for so long the transaction of one that is frozen must be found open


def decide(settings: Settings, action: Action, sha: str, **evidence: Any) -> None:
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    ledger.decide("main", at_ms=1, actor="test", action=action, snapshot=sha, evidence=evidence)
    ledger.close()


def produce(kafka: KafkaClient, texts: dict[str, str]) -> None:
    sink = KafkaSink(kafka)
    for name, text in texts.items():
        value, headers = event_record(Event(event_id=name, text=text, time_ms=10**12), source="test")
        sink.send(EVENTS, value, key=name.encode(), headers=headers)
    sink.flush()
    sink.close()


@contextmanager
def coming(kafka: KafkaClient) -> Iterator[list[str]]:
    """Have events come while the context is open; yields the ids of those that came."""
    names, enough = list[str](), threading.Event()

    def come() -> None:
        while not enough.wait(PAUSE_S):
            some = {f"come{len(names) + i}": f"cash offer {len(names) + i}" for i in range(EACH)}
            produce(kafka, some)
            names.extend(some)

    thread = threading.Thread(target=come, name="producer")
    thread.start()
    try:
        yield names
    finally:
        enough.set()
        thread.join()


def read(kafka: KafkaClient, topic: str) -> list[RawRecord]:
    source = KafkaSource(kafka, KafkaSourceRules(topics=(topic,)))
    source.seek({})
    found: list[RawRecord] = []
    while not all(source.at_end(p) for p in source.partitions()):
        found += source.poll(timeout_ms=50, max_records=500)
    source.close()
    return found


def keys(kafka: KafkaClient, topic: str) -> Counter[bytes | None]:
    return Counter(raw.key for raw in read(kafka, topic))


@final
class Transactions:
    """Tells whether a transaction on a topic of one partition is open."""

    def __init__(self, kafka: KafkaClient, topic: str) -> None:
        levels = ("read_uncommitted", "read_committed")
        self._readers = [KafkaConsumer(**kafka.settings(), isolation_level=level) for level in levels]
        self._at = TopicPartition(topic, 0)

    def open(self) -> bool:
        """Ask for the end of all records first: those behind it may be committed by then, and not open."""
        last, stable = (reader.end_offsets([self._at])[self._at] for reader in self._readers)
        return bool(stable < last)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def started(
    settings: Settings, out: IO[str] | int = subprocess.PIPE, /, **more: Any
) -> subprocess.Popen[str]:
    """Start `priorflow score` with these settings."""
    said = settings.model_dump(exclude_unset=True, mode="json")
    command = [sys.executable, "-m", "priorflow", "score", "--json"]
    for name, value in {**said, **more}.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    return subprocess.Popen(command, stdout=out, text=True)


@final
class Life:
    """A process of `priorflow score`; what it says goes to a file, which is never too full to be written."""

    def __init__(self, settings: Settings, said: Path) -> None:
        self._said = said
        with said.open("w", encoding="utf-8") as out:
            self._process = started(settings, out)

    def answers(self) -> bool:
        """Tell whether it has answered something; it must be alive until it has."""
        said = self._said.read_text(encoding="utf-8")
        assert self._process.poll() is None, said
        return '"event": "answered"' in said

    def killed_within(self, transactions: Transactions) -> None:
        """Kill -9 with a transaction open: frozen first, so that it cannot end it before the blow."""
        until(lambda: self._caught(transactions))
        self.close()

    def ends(self) -> int:
        """Ask it to end; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LIMIT_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _caught(self, transactions: Transactions) -> bool:
        """Stop it if a transaction is open; let it go on if that was not, or not only, its own."""
        if not transactions.open():
            return False
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + HOLD_S
        while transactions.open():
            if time.monotonic() > deadline:
                return True
        self._process.send_signal(signal.SIGCONT)
        return False


def until(done: Callable[[], bool], *, look_s: float = 0.005) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(look_s)
