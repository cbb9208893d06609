"""Immutable bytes named by their sha256: in a folder, anywhere fsspec reaches, in memory.

A folder is written so that a power cut leaves either the whole blob or none: temporary file, fsync,
rename, fsync of the folder. Object stores put a whole object or none by themselves.
Every read is checked against the name, so an altered blob is never believed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

import fsspec

from connectors.crash import Crash, live
from posterior.snapshot import ErasableBlobs, LedgerCorrupt, LedgerUnavailable

TEMPORARY = "tmp"
_SHA: Final = re.compile("[0-9a-f]{64}")


def open_blobs(url: str | Path, *, crash: Crash = live) -> ErasableBlobs:
    """Open a blob store: a folder by its path or file: URL, anything else through fsspec."""
    filesystem, root = fsspec.core.url_to_fs(str(url))
    if "file" in _protocols(filesystem):
        return FolderBlobs(Path(root), crash=crash)
    return RemoteBlobs(filesystem, root)


@final
class FolderBlobs:
    """Blobs in a local folder, durable once `put` returns.

    Steps for `crash`: before-blob-write, before-blob-rename, after-blob-rename.
    """

    def __init__(self, folder: Path, *, crash: Crash = live) -> None:
        self._folder = folder
        self._crash = crash

    def put(self, data: bytes) -> str:
        """Store durably and return the sha; a damaged blob of that name is replaced."""
        sha = hashlib.sha256(data).hexdigest()
        path = self._path(sha)
        with _translated(str(path)):
            if path.exists() and path.read_bytes() == data:
                _sync(path)  # its writer may have died before its own fsync
            else:
                self._write(path, data)
            for folder in (path.parent, self._folder):
                _sync(folder)
        return sha

    def get(self, sha: str) -> bytes:
        """Return the bytes; raises LedgerCorrupt if missing or altered."""
        path = self._path(sha)
        with _translated(str(path)):
            return _verified(path.read_bytes(), sha, str(path))

    def names(self) -> Sequence[str]:
        """Return the shas of everything that is stored, sorted."""
        return _shas(path.name for path in self._folder.glob("[0-9a-f][0-9a-f]/*"))

    def remove(self, sha: str) -> None:
        """Do away with the bytes for good; a no-op where there are none."""
        path = self._path(sha)
        with _translated(str(path)):
            path.unlink(missing_ok=True)
            if path.parent.exists():
                _sync(path.parent)

    def sweep(self, before_s: float) -> int:
        """Remove what dead writers left before `before_s` (seconds since the epoch); count it."""
        left = [p for p in self._temporaries() if p.stat().st_mtime < before_s]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / TEMPORARY / f"{path.name}.{secrets.token_hex(4)}"
        temporary.parent.mkdir(exist_ok=True)
        self._crash("before-blob-write")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._crash("before-blob-rename")
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        self._crash("after-blob-rename")

    def _path(self, sha: str) -> Path:
        return self._folder / sha[:2] / sha

    def _temporaries(self) -> list[Path]:
        folder = self._folder / TEMPORARY
        return list(folder.iterdir()) if folder.exists() else []


@final
class RemoteBlobs:
    """Blobs behind an fsspec file system whose puts are atomic: S3, GCS, Azure, memory."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")

    def put(self, data: bytes) -> str:
        """Store the object and return the sha; a damaged object of that name is replaced."""
        sha = hashlib.sha256(data).hexdigest()
        path = self._path(sha)
        with _translated(path):
            self._filesystem.pipe_file(path, data)
        return sha

    def get(self, sha: str) -> bytes:
        """Return the bytes; raises LedgerCorrupt if missing or altered."""
        path = self._path(sha)
        with _translated(path):
            return _verified(bytes(self._filesystem.cat_file(path)), sha, path)

    def names(self) -> Sequence[str]:
        """Return the shas of everything that is stored, sorted."""
        with _translated(self._root):
            found = self._filesystem.find(self._root) if self._filesystem.exists(self._root) else ()
            return _shas(path.rpartition("/")[2] for path in found)

    def remove(self, sha: str) -> None:
        """Do away with the object; a no-op where there is none. A store of versions may keep an older one."""
        path = self._path(sha)
        with _translated(path), suppress(FileNotFoundError):
            self._filesystem.rm_file(path)

    def sweep(self, before_s: float) -> int:
        """Nothing is left by writers: an object is there whole or not at all."""
        del before_s
        return 0

    def _path(self, sha: str) -> str:
        return f"{self._root}/{sha[:2]}/{sha}"


@final
class MemoryBlobs:
    """Blobs in a dict."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep the bytes and return their sha."""
        sha = hashlib.sha256(data).hexdigest()
        self.stored[sha] = bytes(data)
        return sha

    def get(self, sha: str) -> bytes:
        """Return the bytes; raises LedgerCorrupt if missing or altered."""
        data = self.stored.get(sha)
        if data is None or hashlib.sha256(data).hexdigest() != sha:
            message = f"blob {sha} is {'missing' if data is None else 'damaged'}"
            raise LedgerCorrupt(message)
        return data

    def names(self) -> Sequence[str]:
        """Return the shas of everything that is kept, sorted."""
        return sorted(self.stored)

    def remove(self, sha: str) -> None:
        """Do away with the bytes; a no-op where there are none."""
        self.stored.pop(sha, None)

    def sweep(self, before_s: float) -> int:
        """Nothing is left by writers in a dict."""
        del before_s
        return 0


def _shas(names: Iterable[str]) -> list[str]:
    """Return the names that are a sha256, sorted: what else lies about is not ours."""
    return sorted(name for name in names if _SHA.fullmatch(name))


def _protocols(filesystem: Any) -> tuple[str, ...]:
    names = filesystem.protocol
    return (names,) if isinstance(names, str) else tuple(names)


def _verified(data: bytes, sha: str, path: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha:
        message = f"blob {path} is damaged: its {len(data)} bytes hash to {found}"
        raise LedgerCorrupt(message)
    return data


def _sync(path: Path) -> None:
    """Flush a file or folder to the device."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Turn the store's errors into the port's: missing is corrupt, unreachable may be retried."""
    try:
        yield
    except FileNotFoundError as missing:
        message = f"blob {path} is missing"
        raise LedgerCorrupt(message) from missing
    except OSError as failed:
        message = f"blob {path} cannot be read or written just now: {failed}"
        raise LedgerUnavailable(message) from failed
