"""Records out: set-aside records to the dead-letter and late topics, histories to their topics.

A dead letter keeps its original bytes, key, headers and timestamp; what we know of it is in headers under
`priorflow.`. Writing is at-least-once: after a crash the same letter may stand there twice, under the
same source position, and readers deduplicate by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

from kafka import KafkaProducer

from connectors.kafka_client import KEPT, KafkaClient, TopicWish, connect, ensure_topics, translated
from stream.plan import Setaside
from stream.source import SourceUnavailable

PREFIX: Final = "priorflow."
FLUSH_S: Final = 30.0
LARGEST: Final = 64 << 20  # dead letters take larger records than any input may hold
_LARGE: Final = {**KEPT, "max.message.bytes": str(LARGEST)}


@final
class KafkaSink:
    """Writes; everything handed in is durable when `flush` or `set_aside` returns."""

    def __init__(self, client: KafkaClient, *, dead_letters: str, late: str) -> None:
        """Connect, and create the two topics if they are missing."""
        wishes = [TopicWish(name=name, configs=_LARGE) for name in (dead_letters, late)]
        ensure_topics(client, wishes)
        self._client, self._dead_letters, self._late = client, dead_letters, late
        with translated(client, "connecting a producer"):
            self._producer: Any = connect(
                client,
                KafkaProducer,
                acks="all",
                linger_ms=5,
                batch_size=1 << 16,
                max_request_size=LARGEST,
                buffer_memory=2 * LARGEST,
            )
        self._sent: list[Any] = []

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
        with translated(self._client, f"writing to {topic}"):
            sent = self._producer.send(
                topic,
                value=value,
                key=key,
                headers=list(headers),
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
        self._sent.append(sent)

    def flush(self) -> None:
        """Wait until everything is acknowledged; SourceUnavailable if it is not in time."""
        sent, self._sent = self._sent, []
        with translated(self._client, "writing"):
            self._producer.flush(timeout=FLUSH_S)
            for one in sent:
                one.get(timeout=FLUSH_S)

    def set_aside(self, records: Sequence[Setaside]) -> None:
        """Write dead letters and late records, and wait until they are durable."""
        if not records:
            return
        for aside in records:
            raw, refusal = aside.raw, aside.refusal
            at = raw.position
            told = {
                "topic": at.topic,
                "partition": str(at.partition),
                "offset": str(at.offset),
                "stage": "late" if refusal is None else refusal.stage,
                "reason": "behind its partition's watermark" if refusal is None else refusal.reason,
            }
            self.send(
                self._late if refusal is None else self._dead_letters,
                raw.value,
                key=raw.key,
                headers=[*raw.headers, *((PREFIX + k, v.encode()) for k, v in told.items())],
                timestamp_ms=max(0, raw.timestamp_ms),
            )
        self.flush()

    def close(self) -> None:
        """Let go; what was not flushed may be lost, so flush first."""
        try:
            self._producer.close(timeout=5)
        except SourceUnavailable:  # pragma: no cover - the cluster is gone; nothing of ours is
            return
