"""Records in, records out, each exactly once: consume, answer and commit in one Kafka transaction.

Members of one consumer group share the partitions. What a member took, the answers it gives and the positions
behind them become one transaction, so that whoever reads with `read_committed` sees an answer to each record
once, through crashes and rebalances: a member that lost its partitions in between may not commit (KIP-447),
and the one that has them now takes the same records again.

    exchange.take(...)            records that nobody has answered yet
    exchange.give(answers)        answers and positions, or neither
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from connectors.crash import Crash, live
from connectors.kafka_client import KafkaClient, TopicWish, connect, ensure_topics, translated
from connectors.kafka_source import FETCH, raw_record
from connectors.letters import Outgoing
from stream.record import RawRecord
from stream.source import Partition, SourceUnavailable

LARGEST: Final = 64 << 20
LINGER_MS: Final = 5


class Undone(SourceUnavailable):
    """A transaction was not committed; its records come again, to us or to another member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRules:
    """Who takes what: `topics` are read by the members of `group`, and those in `writes` made if missing.

    `hold_ms` is how long a member may be busy with what it took before its partitions go to another;
    `open_ms` how long a transaction may stay open: readers wait so long for one whose member died in it.
    `discover_ms` is how often one asks which partitions there are. On a busy machine a member of kafka-python
    3.0 may join before it has heard of its topic's, and has none of them until it asks again.
    """

    topics: tuple[str, ...]
    writes: tuple[TopicWish, ...]
    group: str
    hold_ms: int = 300_000
    session_ms: int = 10_000
    open_ms: int = 10_000
    discover_ms: int = 10_000


@final
class KafkaExchange:
    """A member of the group; not thread-safe.

    Steps for `crash`: after-send (nothing is committed), after-positions, after-commit.
    """

    def __init__(self, client: KafkaClient, rules: ExchangeRules, *, crash: Crash = live) -> None:
        """Create the topics that are written, and join when first asked for records."""
        ensure_topics(client, rules.writes)
        self._client, self._rules, self._crash = client, rules, crash
        self._consumer: Any = None
        self._producer: Any = None
        self._taken: dict[TopicPartition, int] = {}  # the next offsets
        self._member: Any = None  # as whom they were taken

    def take(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return records that nobody has answered, in offset order per partition; empty if none came.

        What was taken before and not given is forgotten: it comes again after a restart only.
        """
        with self._talking("reading"):
            reader = self._reader()
            batches = reader.poll(timeout_ms=timeout_ms, max_records=max_records)
            # Not asked for when giving: one that has lost its place by then is nobody, and nobody may commit.
            self._member = reader.group_metadata()
        self._taken = {at: batch[-1].offset + 1 for at, batch in batches.items()}
        return [raw_record(record) for batch in batches.values() for record in batch]

    def give(self, answers: Sequence[Outgoing]) -> None:
        """Write answers to what was taken last, with the positions behind it; Undone if that cannot be."""
        taken, self._taken = self._taken, {}
        if not taken:
            return
        if self._member.generation_id < 0:
            self._leave()
            msg = f"group {self._rules.group}: our place was lost while we read; taken again"
            raise Undone(msg)
        positions = {at: OffsetAndMetadata(offset, "", -1) for at, offset in taken.items()}
        try:
            self._transact(answers, positions)
        except KafkaError as failed:
            self._leave()
            with translated(self._client, "answering"):
                msg = f"answering at {self._client.bootstrap}: not committed ({failed}); taken again"
                raise Undone(msg) from failed

    def put_back(self) -> None:
        """Give up what was taken last: it comes again, to us or to another member."""
        self._taken = {}
        self._leave()

    def at_end(self) -> bool:
        """Tell whether everything in the partitions that are ours was taken; False while none is."""
        with self._talking("asking for the ends"):
            reader = self._reader()
            ours = reader.assignment()
            if not ours:
                return False
            ends = reader.end_offsets(list(ours))
            return all(reader.position(at) >= end for at, end in ends.items())

    def ours(self) -> Sequence[Partition]:
        """Return the partitions that are ours just now."""
        return sorted((at.topic, at.partition) for at in self._reader().assignment())

    def close(self) -> None:
        """Leave the group."""
        self._leave()

    def _transact(self, answers: Sequence[Outgoing], positions: dict[TopicPartition, Any]) -> None:
        producer = self._writer()
        producer.begin_transaction()
        sent = [
            producer.send(
                one.topic,
                value=one.value,
                key=one.key,
                headers=list(one.headers),
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
            )
            for one in answers
        ]
        producer.flush()
        for one in sent:
            one.get(timeout=self._client.patience_ms / 1000)
        self._crash("after-send")
        producer.send_offsets_to_transaction(positions, self._member)
        self._crash("after-positions")
        producer.commit_transaction()
        self._crash("after-commit")

    def _reader(self) -> Any:
        if self._consumer is None:
            self._consumer = connect(
                self._client,
                KafkaConsumer,
                group_id=self._rules.group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
                max_poll_interval_ms=self._rules.hold_ms,
                session_timeout_ms=self._rules.session_ms,
                heartbeat_interval_ms=self._rules.session_ms // 3,
                metadata_max_age_ms=self._rules.discover_ms,
                **FETCH,
            )
            self._consumer.subscribe(list(self._rules.topics))
        return self._consumer

    def _writer(self) -> Any:
        """Return the producer; its name is its own, for it is the group that keeps strangers out."""
        if self._producer is None:
            self._producer = connect(
                self._client,
                KafkaProducer,
                transactional_id=f"{self._rules.group}-{uuid.uuid4().hex}",
                transaction_timeout_ms=self._rules.open_ms,
                acks="all",
                linger_ms=LINGER_MS,
                max_request_size=LARGEST,
                max_block_ms=self._client.patience_ms,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            self._producer.init_transactions()
        return self._producer

    def _leave(self) -> None:
        """Let both clients go: what a failed transaction leaves in them is theirs to know."""
        producer, self._producer = self._producer, None
        consumer, self._consumer = self._consumer, None
        closings: list[Callable[[], None]] = []
        if producer is not None:
            closings = [producer.abort_transaction, lambda: producer.close(timeout=1)]
        if consumer is not None:
            closings.append(lambda: consumer.close(autocommit=False, timeout_ms=1000))
        for close in closings:
            with suppress(KafkaError):
                close()

    @contextmanager
    def _talking(self, doing: str) -> Iterator[None]:
        with translated(self._client, doing):
            try:
                yield
            except KafkaError:
                self._leave()
                raise
