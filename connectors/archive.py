"""The records a run read, kept in files, so that history can be replayed without the log.

An archive is a folder of parts, Parquet or JSON lines; a part is written to a temporary file and renamed,
so that a run that goes on appends a part and a run that dies leaves whole ones. It holds what was read, byte
for byte, with its positions, and is a `Source` like any other, read part by part.

JSON lines are for eyes and editors: bytes stand as text where they are UTF-8, else as base64 under
`value_base64`, `key_base64`.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.crash import Crash, live
from stream.record import Position, RawRecord
from stream.source import Partition, SourceLost

PART_RECORDS: Final = 20_000
_BATCH: Final = 1_000
_PLACE: Final = ["topic", "partition", "offset"]
_SCHEMA: Final = pa.schema(
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
    """Appends raw records; each `flush` makes one durable part. Records archived before are passed over.

    Flush before positions are committed: what lies before them is not read again.
    """

    def __init__(self, folder: Path, *, form: str = "parquet") -> None:
        """Go on behind what the folder holds; `form` is parquet or jsonl."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._form = folder, form
        self._rows: list[RawRecord] = []
        self._next: dict[Partition, int] = {}
        for path in parts(folder):
            for topic, partition, offset in _places(path):
                self._next[topic, partition] = offset + 1

    def add(self, records: Sequence[RawRecord]) -> None:
        """Keep records that are new; beyond PART_RECORDS they are flushed."""
        for raw in records:
            at = raw.position
            if at.offset >= self._next.get((at.topic, at.partition), 0):
                self._rows.append(raw)
                self._next[at.topic, at.partition] = at.offset + 1
        if len(self._rows) >= PART_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added as one part."""
        if not self._rows:
            return
        numbers = [int(path.stem.removeprefix("part-")) for path in parts(self._folder)]
        _write(self._folder / f"part-{max(numbers, default=-1) + 1:06d}.{self._form}", self._rows)
        self._rows = []


def rewrite(
    archive: Path, changed: Callable[[RawRecord], RawRecord | None], *, crash: Crash = live
) -> list[Position]:
    """Put other records in the place of those that `changed` has one for, part by part; say which.

    A part is written anew beside the old one and renamed over it, so that each is whole at any moment; one
    without such a record is not touched. What a dead writer left half written is removed. Nobody may write
    meanwhile. Steps for `crash`: before-part, after-part.
    """
    if archive.is_dir():
        for path in archive.glob("part-*.tmp"):
            path.unlink()
    out: list[Position] = []
    for path in parts(archive):
        old = list(_read(path))
        new = [changed(raw) or raw for raw in old]
        found = [raw.position for raw, other in zip(old, new, strict=True) if other is not raw]
        if found:
            crash("before-part")
            _write(path, new)
            crash("after-part")
        out += found
    return out


def _write(path: Path, rows: Sequence[RawRecord]) -> None:
    """Write a part that is there whole or, after a power cut, as it was before."""
    temporary = path.with_suffix(".tmp")
    if path.suffix == ".jsonl":
        temporary.write_text("".join(f"{_line(r)}\n" for r in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([_cells(r) for r in rows], schema=_SCHEMA), temporary)
    _fsync(temporary)
    temporary.replace(path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parts(archive: Path) -> list[Path]:
    """Return the files of an archive in order; a single file is an archive too."""
    if archive.is_file():
        return [archive]
    return sorted(p for p in archive.glob("part-*") if p.suffix in {".jsonl", ".parquet"})


def read_archive(archive: Path) -> Iterator[RawRecord]:
    """Yield the records of an archive, part by part; raises SourceLost where one cannot be read."""
    for path in parts(archive):
        yield from _read(path)


def _read(path: Path) -> Iterator[RawRecord]:
    with _readable(path):
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8", newline="\n") as lines:
                yield from map(_from_line, lines)
        else:
            for batch in pq.ParquetFile(path).iter_batches(_BATCH):
                yield from map(_from_cells, batch.to_pylist())


def _places(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield topic, partition, offset of every record of a part, without its content where the form allows."""
    with _readable(path):
        if path.suffix == ".jsonl":
            for raw in _read(path):
                yield raw.position.topic, raw.position.partition, raw.position.offset
        else:
            table = pq.read_table(path, columns=_PLACE)
            yield from zip(*(table.column(name).to_pylist() for name in _PLACE), strict=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as broken:
        msg = f"{path} is no part of an archive, or is damaged: {broken}; put it back from a copy"
        raise SourceLost(msg) from broken


@final
class ArchiveSource:
    """Reads an archive as a log that has ended, in the order in which it was read then."""

    def __init__(self, archive: Path) -> None:
        """Look through the archive; raises SourceLost if it is empty or damaged."""
        self._archive = archive
        self._first: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._parts = [(path, self._look_through(path)) for path in parts(archive)]
        if not self._ends:
            msg = f"{archive} holds no archived records; write one by setting `archive` for a run"
            raise SourceLost(msg)
        self._next = dict(self._first)
        self._rest = self._read()

    def _look_through(self, path: Path) -> dict[Partition, int]:
        """Return the ends of a part's partitions."""
        ends: dict[Partition, int] = {}
        for topic, partition, offset in _places(path):
            key = (topic, partition)
            if offset < self._ends.get(key, 0):
                msg = f"{path}: {Position(topic, partition, offset)} stands behind a later record; sort it"
                raise SourceLost(msg)
            self._first.setdefault(key, offset)
            self._ends[key] = ends[key] = offset + 1
        return ends

    def _read(self) -> Iterator[RawRecord]:
        """Yield what is wanted, without opening parts that lie wholly before it."""
        for path, ends in self._parts:
            if any(end > self._next[key] for key, end in ends.items()):
                yield from filter(self._wanted, _read(path))

    def partitions(self) -> Sequence[Partition]:
        """Return the archived partitions."""
        return sorted(self._ends)

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Continue at these offsets; raises SourceLost if the archive begins later than one of them."""
        for (topic, number), offset in positions.items():
            first = self._first.get((topic, number), offset)
            if offset < first:
                msg = (
                    f"{topic}[{number}]: offset {offset} is wanted, but {self._archive} begins at {first}; "
                    "replay from the log, or from an archive that goes back further"
                )
                raise SourceLost(msg)
        self._next = {key: positions.get(key, first) for key, first in self._first.items()}
        self._rest = self._read()

    def poll(self, *, timeout_ms: int, max_records: int) -> Sequence[RawRecord]:
        """Return the next records, of any partitions."""
        del timeout_ms
        found = list(islice(self._rest, max_records))
        for raw in found:
            self._next[raw.position.topic, raw.position.partition] = raw.position.offset + 1
        return found

    def _wanted(self, raw: RawRecord) -> bool:
        at = raw.position
        return at.offset >= self._next[at.topic, at.partition]

    def hold(self, partitions: Collection[Partition]) -> None:
        """Go on: an archive keeps the order in which it was read, in which no partition was far ahead."""

    def ends(self) -> Mapping[Partition, int]:
        """Return the offset after the last record of each partition."""
        return dict(self._ends)

    def at_end(self, partition: Partition) -> bool:
        """Tell whether a partition has been read to its end; one that is not archived has no records."""
        return self._next.get(partition, 0) >= self._ends.get(partition, 0)

    def acknowledge(self, positions: Mapping[Partition, int]) -> None:
        """Nobody asks an archive how far its readers are."""

    def close(self) -> None:
        """Let go of the part that is open."""
        self._rest = iter(())


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


def _from_cells(row: Mapping[str, Any]) -> RawRecord:
    at = Position(row["topic"], row["partition"], row["offset"])
    headers = tuple((h["name"], h["value"]) for h in row["headers"] or ())
    return RawRecord(at, row["timestamp_ms"], row["key"], row["value"], headers)


def _line(raw: RawRecord) -> str:
    cells = _cells(raw)
    shown: dict[str, Any] = {name: cells[name] for name in (*_PLACE, "timestamp_ms")}
    shown |= _shown("key", raw.key) | _shown("value", raw.value)
    headers = [{"name": name, **_shown("value", value)} for name, value in raw.headers]
    return json.dumps(shown | {"headers": headers}, ensure_ascii=False)


def _from_line(line: str) -> RawRecord:
    row = json.loads(line)
    headers = tuple((h["name"], _hidden("value", h) or b"") for h in row.get("headers", ()))
    at = Position(row["topic"], row["partition"], row["offset"])
    return RawRecord(at, row["timestamp_ms"], _hidden("key", row), _hidden("value", row), headers)


def _shown(name: str, data: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data or b"").decode()}


def _hidden(name: str, row: Mapping[str, Any]) -> bytes | None:
    if f"{name}_base64" in row:
        return base64.b64decode(row[f"{name}_base64"])
    text = row.get(name)
    return None if text is None else str(text).encode()
