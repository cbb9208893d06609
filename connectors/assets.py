"""Files that are fetched once, checked against a committed sha256, and kept.

AssetError
├── AssetUnavailable   retry: it could not be fetched just now, or the tool for it is missing
└── AssetAltered       stop: what came is not what was locked
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[int, int], None]  # (done, of how many)


class AssetError(Exception):
    """Something about a fetched file; the message says which one and what to do."""


class AssetUnavailable(AssetError):
    """The file could not be fetched; the same call may succeed later."""


class AssetAltered(AssetError):
    """The bytes are not those that were locked; nothing of them is kept."""


def silent(done: int, total: int) -> None:
    """Tell nobody about progress."""
    del done, total


def sha256_file(path: Path) -> str | None:
    """Hash a file's bytes; None if there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def keep(staged: Path, wanted: str, kept: Path) -> None:
    """Move a fetched file to where it is kept, if its sha256 is the locked one.

    The move is atomic, so a reader sees the whole file or none, and two fetchers do not disturb
    each other. Raises AssetAltered.
    """
    found = sha256_file(staged)
    if found != wanted:
        msg = (
            f"{kept.name} was fetched with sha256 {found}, but {wanted} is locked; something on the "
            "way (a mirror, a proxy) changed it. It was not kept"
        )
        raise AssetAltered(msg)
    staged.replace(kept)
