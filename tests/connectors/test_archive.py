"""An archive is a log that has ended, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.archive import ArchiveSource, ArchiveWriter, read_archive
from connectors.memory import MemoryLog
from stream.source import SourceLost


def log() -> MemoryLog:
    made = MemoryLog([("a", 0), ("a", 1)])
    for i in range(30):
        value = None if i == 7 else bytes([i, 255, 0])
        made.append(("a", i % 2), value, key=b"k", headers=[("h", b"\xff"), ("h", b"2")], timestamp_ms=i)
    return made


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_what_was_written_is_read_byte_for_byte(form: str, tmp_path: Path) -> None:
    records = [r for lane in log().lanes.values() for r in lane]
    writer = ArchiveWriter(tmp_path, form=form)
    writer.add(records[:10])
    writer.flush()
    again = ArchiveWriter(tmp_path, form=form)
    again.add(records)
    again.flush()
    assert list(read_archive(tmp_path)) == records


def test_an_archive_is_a_source(tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path)
    for lane in log().lanes.values():
        writer.add(lane)
    writer.flush()
    source = ArchiveSource(tmp_path)
    assert list(source.partitions()) == [("a", 0), ("a", 1)]
    source.seek({("a", 0): 3, ("a", 1): 15})
    offsets = []
    while not all(source.at_end(p) for p in source.partitions()):
        offsets += [r.position.offset for r in source.poll(timeout_ms=0, max_records=4)]
    assert offsets == list(range(3, 15))
    assert dict(source.ends()) == {("a", 0): 15, ("a", 1): 15}


def test_an_empty_archive_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match="holds no archived records"):
        ArchiveSource(tmp_path)
