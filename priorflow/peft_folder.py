"""A folder that holds one exported adapter: written whole or not at all, and never over another's unasked.

The files are written beside, flushed to the device, and renamed into place. A folder that was there before is
renamed aside first; who is killed between the two finds it there, under a name that begins with a dot.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from priorflow.peft_card import CARD, MARK
from trainers.peft_form import FACTS, FILES


class FolderHeld(ValueError):
    """The folder holds something that is not to be overwritten; the message says what, and what to do."""


def require_free(folder: Path, name: str, *, force: bool) -> None:
    """Raise FolderHeld unless the folder is absent, empty or this adapter's; `force` allows another's.

    What no export wrote is not overwritten by any means.
    """
    above = next(path for path in folder.resolve().parents if path.exists())
    if not above.is_dir():
        msg = f"{above} is a file, so there can be no folder {folder} in it; name another"
        raise FolderHeld(msg)
    if not folder.exists():
        return
    strange = [folder.name] if not folder.is_dir() else _strange(folder)
    if strange:
        msg = f"{folder} holds {strange[0]!r}, which no export wrote; name a new or an empty folder"
        raise FolderHeld(msg)
    there = held(folder)
    if there not in (None, name) and not force:
        msg = f"{folder} holds the adapter {there!r}, and this is {name!r}; name another folder, or --force"
        raise FolderHeld(msg)


def held(folder: Path) -> str | None:
    """Return the name of the adapter that a folder of ours holds; None if it is empty."""
    if not any(folder.iterdir()):
        return None
    try:
        return str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["adapter"])
    except (ValueError, KeyError, TypeError) as damaged:
        msg = f"{folder / FACTS} names no adapter; name a new or an empty folder"
        raise FolderHeld(msg) from damaged


def _strange(folder: Path) -> list[str]:
    """Return what is there and not ours: all of it where the file that names the adapter is missing."""
    names = sorted(path.name for path in folder.iterdir())
    ours = {*FILES, *([CARD] if _is_card(folder / CARD) else [])}
    return [name for name in names if name not in ours or FACTS not in names]


def _is_card(path: Path) -> bool:
    """Tell a README that an export wrote from one of somebody's own."""
    return path.is_file() and path.read_bytes().startswith(MARK.encode())


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the folder, durably and at once; whatever it held is gone afterwards."""
    place = folder.resolve()  # a link stays one, and what it leads to is replaced
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    aside = draft.with_name(f"{draft.name}-before")
    try:
        draft.mkdir()
        for name, data in files.items():
            _write(draft / name, data)
        _sync(draft)
        _exchange(draft, place, aside)
        _sync(place.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _exchange(draft: Path, place: Path, aside: Path) -> None:
    if not place.exists():
        draft.rename(place)
        return
    place.rename(aside)
    try:
        draft.rename(place)
    except BaseException:
        aside.rename(place)
        raise


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
