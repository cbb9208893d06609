"""The Source port on Kafka: every partition of its topics, read in order, from positions we choose.

No consumer group: positions come from the ledger, and a group would split one chain between two members.
No value_deserializer: one that raises makes the next poll of kafka-python spin for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast, final

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    CorruptRecordError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NoError,
    NotCoordinatorError,
    OffsetOutOfRangeError,
)
from kafka.structs import OffsetAndMetadata

from connectors.kafka_client import KafkaClient, connect, partition_counts, translated
from stream.record import Position, RawRecord
from stream.source import Partition, SourceError, SourceLost, SourceUnavailable

FETCH: Final[Mapping[str, Any]] = {
    "isolation_level": "read_committed",
    "max_poll_records": 5000,
    "max_partition_fetch_bytes": 4 << 20,
    # One fetch at a time goes to a broker: while it waits at the ends of short partitions, long ones wait.
    "fetch_max_wait_ms": 50,
    "metrics_enabled": False,
}
"""How records are fetched; kafka-python's own settings halve the rate on several partitions."""
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSourceRules:
    """How a source reads; the times are wall-clock milliseconds."""

    topics: tuple[str, ...]
    group: str | None = None
    """Consumer group under which positions are shown to operators; None: nowhere."""
    commit_ms: int = 5_000
    """How long `acknowledge` waits for the group's coordinator, which a fresh cluster must first elect."""
    discover_ms: int = 30_000
    """How often the cluster is asked for new partitions."""
    probe_ms: int = 5_000
    """How long records alone may vouch for the cluster: kafka-python says nothing of an outage."""


@final
class KafkaSource:
    """Reads raw records; not thread-safe. `now_ms` is a monotonic clock."""

    def __init__(
        self,
        client: KafkaClient,
        rules: KafkaSourceRules,
        *,
        now_ms: Callable[[], float] = lambda: time.monotonic() * 1000,
    ) -> None:
        """Connect and find the partitions; positions are set by `seek`.

        Raises SourceUnavailable, or ClusterRefused if a topic is missing or we are not let in.
        """
        self._client, self._rules, self._now = client, rules, now_ms
        self._broken: SourceError | None = None
        self._admin: Any = None
        self._partitions: list[Partition] = []
        self._ends: dict[Partition, int] = {}
        self._ends_hold = False  # whether `_ends` is younger than the last poll
        self._asked = self._heard = now_ms()
        self._partitions = self._discovered()
        with translated(client, "connecting"):
            self._consumer = connect(
                client,
                KafkaConsumer,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                metadata_max_age_ms=rules.discover_ms,
                **FETCH,
            )

    def partitions(self) -> Sequence[Partition]:
        """Return all partitions, sorted; a new one is read from its beginning."""
        if self._now() - self._asked >= self._rules.discover_ms:
            found = self._discovered()
            new = set(found) - set(self._partitions)
            if new and self._consumer.assignment():
                self._place(found, dict.fromkeys(new))
            self._partitions = found
        return self._partitions

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Continue at these next offsets; a partition not named starts at its beginning.

        Raises SourceLost if a position lies before the first record still held, behind the last one
        (another log under the same name), or in a partition that is gone.
        """
        found = self._partitions if set(positions) <= set(self._partitions) else self._discovered()
        for partition in sorted(set(positions) - set(found)):
            where = f"{_name(partition)} at {self._client.bootstrap}"
            msg = f"{where} is gone, and we had read it up to {positions[partition]}"
            raise SourceLost(msg)
        self._broken = None
        self._place(found, {p: positions.get(p) for p in found})
        self._partitions = found

    def poll(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return records in offset order per partition; empty when nothing came in time.

        Raises SourceUnavailable when the cluster does not answer: an outage would otherwise look like
        a quiet log. Raises SourceLost when what we read next is no longer held.
        """
        # All that may fail comes first: what kafka-python has handed over, it does not hand over again.
        self.partitions()
        if self._now() - self._heard >= self._rules.probe_ms:
            self.ends()
        with self._reading("reading"):
            batches = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
        self._ends_hold = False
        if not batches:
            self.ends()
        return [raw for batch in batches.values() for raw in map(raw_record, batch)]

    def ends(self) -> Mapping[Partition, int]:
        """Return the offset after the last committed record of each partition."""
        with self._reading("asking for the ends"):
            self._ends = self._offsets(self._consumer.end_offsets, self._partitions)
        self._ends_hold, self._heard = True, self._now()
        return dict(self._ends)

    def at_end(self, partition: Partition) -> bool:
        """Tell whether everything readable at the last poll was returned.

        kafka-python moves the position over transaction markers and compacted holes, so position and
        last stable offset do meet.
        """
        with self._reading("asking for the position"):
            position = self._consumer.position(TopicPartition(*partition))
        if position is not None and position < self._ends.get(partition, 0):
            return False
        if not self._ends_hold:
            self.ends()
        return position is not None and position >= self._ends[partition]

    def acknowledge(self, positions: Mapping[Partition, int]) -> None:
        """Show operators how far we are, as the offsets of an empty consumer group.

        Lost in an outage: the ledger knows, and the next call shows more. Raises ClusterRefused if the
        group is not ours to write.
        """
        if self._rules.group is None or not positions:
            return
        wanted = {TopicPartition(*p): OffsetAndMetadata(o, "", -1) for p, o in positions.items()}
        with suppress(SourceUnavailable), self._administering("committing positions") as admin:
            _commit(admin, self._rules.group, wanted, self._now, self._rules.commit_ms)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close(autocommit=False, timeout_ms=1000)
        self._dismiss()

    def _discovered(self) -> list[Partition]:
        with self._administering("looking up topics") as admin:
            counts = partition_counts(admin, self._rules.topics)
        self._asked = self._now()
        return sorted((topic, number) for topic, count in counts.items() for number in range(count))

    @contextmanager
    def _administering(self, doing: str) -> Iterator[Any]:
        """Use one admin client as long as it works: a new connection costs more than the question."""
        with translated(self._client, doing):
            if self._admin is None:
                self._admin = connect(self._client, KafkaAdminClient)
            try:
                yield self._admin
            except KafkaError:
                self._dismiss()
                raise

    def _dismiss(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _place(self, partitions: Sequence[Partition], wanted: Mapping[Partition, int | None]) -> None:
        """Assign all partitions and set the positions of those wanted; None is the beginning.

        Everything that can fail comes first, so that no partition is left without a position.
        """
        with self._reading("positioning"):
            begins = self._offsets(self._consumer.beginning_offsets, partitions)
            self._ends = self._offsets(self._consumer.end_offsets, partitions)
            places = {p: begins[p] if at is None else at for p, at in wanted.items()}
            for partition, offset in places.items():
                _held(partition, offset, begins[partition], self._ends[partition])
            self._consumer.assign([TopicPartition(*p) for p in partitions])
            for partition, offset in places.items():
                self._consumer.seek(TopicPartition(*partition), offset)
        self._ends_hold = False

    def _offsets(
        self, ask: Callable[..., Mapping[Any, int]], partitions: Sequence[Partition]
    ) -> dict[Partition, int]:
        at = [TopicPartition(*p) for p in partitions]
        deadline = self._now() + self._client.patience_ms
        while True:
            try:
                found = ask(at, timeout_ms=self._client.patience_ms)
                return {(p.topic, p.partition): found[p] for p in at}
            except (KeyError, KafkaTimeoutError) as unknown:  # gone; new and unheard of; or an outage
                gone = sorted(set(partitions) - set(self._discovered()))
                if gone:
                    msg = f"{_name(gone[0])} at {self._client.bootstrap} is gone"
                    raise SourceLost(msg) from unknown
                if self._now() > deadline:
                    raise KafkaTimeoutError(str(unknown)) from unknown
                time.sleep(_PAUSE_S)

    @contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        """Translate errors; after one that a retry cannot mend, every call says it again until `seek`.

        kafka-python spins for ever when it is polled again after a batch that it could not unpack.
        """
        if self._broken is not None:
            raise self._broken
        try:
            with translated(self._client, doing):
                yield
        except SourceUnavailable:
            raise
        except SourceError as error:
            self._broken = error
            cause = error.__cause__
            if isinstance(cause, OffsetOutOfRangeError | LogTruncationError):
                self._broken = SourceLost(f"{error}; records that we read next are gone")
            elif isinstance(cause, CorruptRecordError):
                damage = "is damaged, or has a header name that is not UTF-8"
                self._broken = SourceLost(f"{error}; at or behind {self._where()} a record {damage}")
            raise self._broken from cause

    def _where(self) -> str:
        """Name the positions of the partitions that have something to read."""
        at: Iterable[tuple[Partition, int | None]] = (
            (p, self._consumer.position(TopicPartition(*p), timeout_ms=0)) for p in self._partitions
        )
        open_ = [Position(*p, offset) for p, offset in at if offset is not None and offset < self._ends[p]]
        return ", ".join(map(str, open_)) or "the end"


def _name(partition: Partition) -> str:
    topic, number = partition
    return f"{topic}[{number}]"


def _commit(
    admin: Any, group: str, wanted: Mapping[Any, Any], now_ms: Callable[[], float], within_ms: float
) -> None:
    deadline = now_ms() + within_ms
    while True:
        try:
            for error in admin.alter_group_offsets(group, wanted).values():
                if error is not NoError:
                    raise error(group)
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if now_ms() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _held(partition: Partition, offset: int, begin: int, end: int) -> None:
    """Raise SourceLost unless the log still holds everything from this offset on."""
    if offset < begin:
        msg = (
            f"{_name(partition)}: offset {offset} is wanted, but the log begins at {begin}; retention "
            "removed records we had not learned. Replay from an archive, or start a new chain"
        )
        raise SourceLost(msg)
    if offset > end:
        msg = (
            f"{_name(partition)}: offset {offset} is wanted, but the log ends at {end}; the topic was "
            "made anew or cut short. Point kafka.bootstrap at the right cluster, or start a new chain"
        )
        raise SourceLost(msg)


def raw_record(record: Any) -> RawRecord:
    """Return kafka-python's record as ours."""
    position = Position(record.topic, record.partition, record.offset)
    return RawRecord(position, record.timestamp, record.key, record.value, _headers(record.headers))


def _headers(found: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    """Return the pairs themselves if every header has a value; one without is an empty one to us."""
    for _, value in found:
        if value is None:
            return tuple((name, value or b"") for name, value in found)
    return tuple(cast("Sequence[tuple[str, bytes]]", found))
