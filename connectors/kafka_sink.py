"""Records out: set-aside records to the dead-letter and late topics, histories to their topics.

Writing is at-least-once: after a crash or an outage the same letter may stand there twice, under the same
source position, and readers count it once (`connectors.letters`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from connectors.kafka_client import (
    KafkaClient,
    TopicWish,
    administration,
    connect,
    ensure_topics,
    partition_counts,
    translated,
)
from connectors.letters import Outgoing, letter
from stream.plan import Setaside

LARGEST: Final = 64 << 20
"""Dead letters take larger records than any input may hold: they carry the reason as well."""
FLUSH_S: Final = 30.0
_AT_ONCE: Final = 10_000
_LINGER_MS: Final = 5
_GRACE_S: Final = 2.0


COMPACTED: Final[Mapping[str, str]] = {
    "cleanup.policy": "compact",
    "retention.ms": "-1",
    "segment.ms": "60000",
    "max.compaction.lag.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
}
"""Each letter has a key of its own and stays for ever, until a tombstone; then it goes within two hours.

Compaction leaves the segment be that is written to, hence short ones; it begins when a tenth of the topic is
new, and after an hour at the latest.
"""


def roomy(name: str) -> TopicWish:
    """Return the wish for a topic that takes dead letters."""
    return TopicWish(name=name, configs={**COMPACTED, "max.message.bytes": str(LARGEST)})


@final
class KafkaSink:
    """Writes; everything handed in is durable when `flush` or `set_aside` returns. Not thread-safe."""

    def __init__(
        self,
        client: KafkaClient,
        *,
        dead_letters: str | None = None,
        late: str | None = None,
        flush_s: float = FLUSH_S,
    ) -> None:
        """Connect, and create the two topics if they are named and missing."""
        wishes = [roomy(name) for name in (dead_letters, late) if name]
        if wishes:
            ensure_topics(client, wishes)
        self._client, self._dead_letters, self._late, self._flush_s = client, dead_letters, late, flush_s
        self._producer: Any = None
        self._sent: list[Any] = []
        self._known = {wish.name for wish in wishes}
        with self._writing("connecting"):
            self._open()

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Hand a record over; it is durable after `flush`."""
        self._require(topic)
        with self._writing(f"writing to {topic}"):
            sent = self._open().send(
                topic,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
        self._sent.append(sent)
        if len(self._sent) >= _AT_ONCE:
            self.flush()

    def send_all(self, records: Iterable[Outgoing]) -> None:
        """Hand records over; they are durable after `flush`."""
        for record in records:
            self.send(
                record.topic,
                record.value,
                key=record.key,
                headers=record.headers,
                partition=record.partition,
                timestamp_ms=record.timestamp_ms,
            )

    def flush(self) -> None:
        """Wait until everything handed over is acknowledged by all replicas.

        Raises SourceUnavailable if it is not in time: then hand it over again, whole. Raises
        ClusterRefused if a topic is missing or takes no record of this size.
        """
        if not self._sent:
            return
        sent, self._sent = self._sent, []
        with self._writing("writing"):
            self._open().flush(timeout=self._delivery_ms() / 1000 + _GRACE_S)
            for one in sent:
                one.get(timeout=_GRACE_S)

    def set_aside(self, records: Sequence[Setaside]) -> None:
        """Write dead letters and late records, and wait until they are durable."""
        for aside in records:
            topic = self._late if aside.refusal is None else self._dead_letters
            assert topic is not None, "a sink that sets records aside is told where to"
            self.send_all([letter(aside, topic)])
        self.flush()

    def close(self) -> None:
        """Let go; what was not flushed may be lost, so flush first."""
        self._drop(timeout_s=5)

    def _drop(self, timeout_s: float) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):  # records that were never acknowledged: their sender knows
                producer.close(timeout=timeout_s)

    def _require(self, topic: str) -> None:
        """Ask once whether a topic is there: a producer waits for a missing one as for a dead cluster."""
        if topic not in self._known:
            with administration(self._client, f"looking up {topic}") as admin:
                partition_counts(admin, [topic])
            self._known.add(topic)

    def _open(self) -> Any:
        if self._producer is None:
            self._producer = connect(
                self._client,
                KafkaProducer,
                acks="all",
                linger_ms=_LINGER_MS,
                batch_size=1 << 16,
                max_request_size=LARGEST,
                max_block_ms=self._client.patience_ms,
                delivery_timeout_ms=self._delivery_ms(),
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        return self._producer

    def _delivery_ms(self) -> int:
        """Return when a record counts as failed: before `flush` ends, for only an idle producer closes."""
        return max(int(self._flush_s * 1000), self._client.patience_ms + _LINGER_MS)

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        """Translate errors, and begin with a new producer after one: a failed one may stay failed."""
        with translated(self._client, doing):
            try:
                yield
            except (KafkaError, OSError):
                self._sent = []
                self._drop(timeout_s=0)
                raise
