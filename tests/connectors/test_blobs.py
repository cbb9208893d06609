"""Blobs: what is read is what was written, or an error; whatever happened in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.blobs import FolderBlobs, MemoryBlobs, RemoteBlobs, open_blobs
from posterior.snapshot import Blobs, LedgerCorrupt, LedgerUnavailable

DATA = b"q(w) = N(m, s)" * 1_000


@dataclass
class Store:
    """A blob store and the hands of someone who tampers with it."""

    blobs: Blobs
    overwrite: Callable[[str, bytes], Any]
    remove: Callable[[str], Any]


@pytest.fixture(params=["folder", "remote", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(
            open_blobs(tmp_path),
            lambda sha, data: (tmp_path / sha[:2] / sha).write_bytes(data),
            lambda sha: (tmp_path / sha[:2] / sha).unlink(),
        )
    if request.param == "remote":
        bucket = fsspec.filesystem("memory")
        root = f"/bucket-{tmp_path.name}"
        return Store(
            open_blobs(f"memory:/{root}"),
            lambda sha, data: bucket.pipe_file(f"{root}/{sha[:2]}/{sha}", data),
            lambda sha: bucket.rm_file(f"{root}/{sha[:2]}/{sha}"),
        )
    blobs = MemoryBlobs()
    return Store(blobs, blobs.stored.__setitem__, blobs.stored.__delitem__)


@given(data=st.binary(max_size=2_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_named_by_content_and_read_back(store: Store, data: bytes) -> None:
    sha = store.blobs.put(data)
    assert sha == hashlib.sha256(data).hexdigest() == store.blobs.put(data)
    assert store.blobs.get(sha) == data


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:0],
        lambda data: data + b"\0",
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
    ],
    ids=["truncated", "emptied", "longer", "one bit"],
)
def test_damage_is_found_and_healed_by_writing_again(store: Store, damage: Callable[[bytes], bytes]) -> None:
    sha = store.blobs.put(DATA)
    store.overwrite(sha, damage(DATA))
    with pytest.raises(LedgerCorrupt, match=f"{sha}.*damaged"):
        store.blobs.get(sha)
    assert store.blobs.put(DATA) == sha
    assert store.blobs.get(sha) == DATA


def test_missing_is_told_by_name(store: Store) -> None:
    sha = store.blobs.put(DATA)
    store.remove(sha)
    with pytest.raises(LedgerCorrupt, match=f"{sha}.* is missing"):
        store.blobs.get(sha)


def test_the_url_says_where(tmp_path: Path) -> None:
    assert isinstance(open_blobs(tmp_path), FolderBlobs)
    assert isinstance(open_blobs(f"file://{tmp_path}"), FolderBlobs)
    assert isinstance(open_blobs("memory://bucket/x"), RemoteBlobs)
    sha = open_blobs(f"file://{tmp_path}/a").put(DATA)
    assert open_blobs(tmp_path / "a").get(sha) == DATA


class Died(Exception):
    pass


@pytest.mark.parametrize("step", ["before-blob-write", "before-blob-rename", "after-blob-rename"])
def test_dying_in_put_leaves_the_whole_blob_or_none(tmp_path: Path, step: str) -> None:
    def crash(here: str) -> None:
        if here == step:
            raise Died

    sha = hashlib.sha256(DATA).hexdigest()
    with pytest.raises(Died):
        FolderBlobs(tmp_path, crash=crash).put(DATA)
    blobs = FolderBlobs(tmp_path)
    if step == "after-blob-rename":
        assert blobs.get(sha) == DATA
    else:
        with pytest.raises(LedgerCorrupt, match="missing"):
            blobs.get(sha)
    assert blobs.put(DATA) == sha
    assert blobs.get(sha) == DATA


def test_what_the_dead_left_is_swept_and_the_living_are_not(tmp_path: Path) -> None:
    def crash(step: str) -> None:
        if step == "before-blob-rename":
            raise Died

    with pytest.raises(Died):
        FolderBlobs(tmp_path, crash=crash).put(DATA)
    (left,) = (tmp_path / "tmp").iterdir()
    written_s = left.stat().st_mtime
    blobs = FolderBlobs(tmp_path)
    assert blobs.sweep(written_s) == 0
    assert left.exists()
    assert blobs.sweep(written_s + 1) == 1
    assert not left.exists()
    assert FolderBlobs(tmp_path / "new").sweep(written_s) == 0


def test_a_store_out_of_reach_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    blobs = FolderBlobs(tmp_path / "blobs")
    with pytest.raises(LedgerUnavailable, match="just now"):
        blobs.put(DATA)
    with pytest.raises(LedgerUnavailable):
        blobs.get("0" * 64)
