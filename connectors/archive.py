"""The records a run read, kept in one file, so that history can be replayed without the log.

Parquet or JSON lines by the file's name. An archive holds what was offered, byte for byte, with its
positions; reading one is a `Source` like any other. Written to a temporary file and renamed, part by part:
an archive is a folder of parts, so that a run that goes on appends a part.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq

from stream.record import Position, RawRecord
from stream.source import Partition, SourceLost

_SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ]
)


@final
class ArchiveWriter:
    """Appends raw records; each `flush` makes one durable part. Records archived before are passed over."""

    def __init__(self, folder: Path, *, form: str = "parquet") -> None:
        """Go on behind what the folder holds; `form` is parquet or jsonl."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._form = folder, form
        self._rows: list[RawRecord] = []
        self._next: dict[Partition, int] = {}
        for raw in read_archive(folder):
            self._note(raw)

    def _note(self, raw: RawRecord) -> None:
        at = raw.position
        self._next[at.topic, at.partition] = max(self._next.get((at.topic, at.partition), 0), at.offset + 1)

    def add(self, records: Sequence[RawRecord]) -> None:
        """Keep records that are new."""
        for raw in records:
            at = raw.position
            if at.offset >= self._next.get((at.topic, at.partition), 0):
                self._rows.append(raw)
                self._note(raw)

    def flush(self) -> None:
        """Write what was added as one part."""
        if not self._rows:
            return
        number = len(list(self._folder.glob("part-*")))
        path = self._folder / f"part-{number:06d}.{self._form}"
        temporary = path.with_suffix(".tmp")
        if self._form == "jsonl":
            temporary.write_text("".join(f"{json.dumps(_row(r))}\n" for r in self._rows), encoding="utf-8")
        else:
            rows = [_cells(r) for r in self._rows]
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        self._rows = []


def read_archive(folder: Path) -> Iterator[RawRecord]:
    """Yield the records of an archive, part by part."""
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                yield _from_row(json.loads(line))
        elif path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                yield _from_cells(row)


@final
class ArchiveSource:
    """Reads an archive as a log that has ended."""

    def __init__(self, folder: Path) -> None:
        """Load the archive; it is an error if there is none."""
        self._lanes: dict[Partition, list[RawRecord]] = {}
        for raw in read_archive(folder):
            self._lanes.setdefault((raw.position.topic, raw.position.partition), []).append(raw)
        if not self._lanes:
            msg = f"{folder} holds no archived records; write one by setting `archive` for a run"
            raise SourceLost(msg)
        self._at: dict[Partition, int] = dict.fromkeys(self._lanes, 0)

    def partitions(self) -> Sequence[Partition]:
        """Return the archived partitions."""
        return sorted(self._lanes)

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Continue at these offsets."""
        for partition, lane in self._lanes.items():
            wanted = positions.get(partition, 0)
            if wanted < lane[0].position.offset and partition in positions:
                topic, number = partition
                msg = f"{topic}[{number}]: offset {wanted} is wanted, the archive begins later"
                raise SourceLost(msg)
            self._at[partition] = sum(1 for r in lane if r.position.offset < wanted)

    def poll(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return records of the partition that is least far."""
        del timeout_ms
        ready = [p for p in self._lanes if not self.at_end(p)]
        if not ready:
            return ()
        partition = min(ready, key=lambda p: (self._at[p] / len(self._lanes[p]), p))
        at = self._at[partition]
        found = self._lanes[partition][at : at + max_records]
        self._at[partition] += len(found)
        return found

    def ends(self) -> Mapping[Partition, int]:
        """Return the offset after the last record of each partition."""
        return {p: lane[-1].position.offset + 1 for p, lane in self._lanes.items()}

    def at_end(self, partition: Partition) -> bool:
        """Tell whether a partition has been read to its end; one that is not archived has no records."""
        return partition not in self._lanes or self._at[partition] >= len(self._lanes[partition])

    def acknowledge(self, positions: Mapping[Partition, int]) -> None:
        """Nobody asks an archive how far its readers are."""

    def close(self) -> None:
        """Nothing to let go of."""


def _cells(raw: RawRecord) -> dict[str, Any]:
    at = raw.position
    return {
        "topic": at.topic,
        "partition": at.partition,
        "offset": at.offset,
        "timestamp_ms": raw.timestamp_ms,
        "key": raw.key,
        "value": raw.value,
        "headers": [{"name": k, "value": v} for k, v in raw.headers],
    }


def _from_cells(row: dict[str, Any]) -> RawRecord:
    at = Position(row["topic"], row["partition"], row["offset"])
    headers = tuple((h["name"], h["value"]) for h in row["headers"])
    return RawRecord(at, row["timestamp_ms"], row["key"], row["value"], headers)


def _row(raw: RawRecord) -> dict[str, Any]:
    cells = _cells(raw)
    coded = {k: _text(cells[k]) for k in ("key", "value")}
    return cells | coded | {"headers": [[k, _text(v)] for k, v in raw.headers]}


def _from_row(row: dict[str, Any]) -> RawRecord:
    at = Position(row["topic"], row["partition"], row["offset"])
    headers = tuple((k, _bytes(v) or b"") for k, v in row["headers"])
    return RawRecord(at, row["timestamp_ms"], _bytes(row["key"]), _bytes(row["value"]), headers)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
