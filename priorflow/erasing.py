"""`priorflow erase`: a person's right to be forgotten, carried out on everything we hold that has text in it.

The ledger's chains first, then stored states, archives and the demo's windows; each step says what it found
and may be repeated. Kafka's own topics are append-only: what lies there is told, with what can be done.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from connectors.archive import read_archive, rewrite
from connectors.blobs import open_blobs
from connectors.codec import decoder
from connectors.crash import Crash, live
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import Chain, ErasableBlobs, Fence
from priorflow.config import Settings
from priorflow.deciding import whoever
from priorflow.demo_serving import ASKED
from priorflow.opening import require_history
from priorflow.rules import codec_rules
from priorflow.run import circumstance
from priorflow.serving.books import serving_folder
from priorflow.serving.comparisons import forget
from priorflow.tenure import holding
from stream.erasure import LeftOut, husk, named
from stream.record import Position, RawRecord
from trainers.erasing import Eraser, Trace, trace

_DEMO: Final = ("demo", "members")  # where the demo keeps what each window held, below home


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which events, why, and in which archives beside those that the settings name."""

    ids: tuple[str, ...]
    chain: str
    reason: str | None = None
    archives: tuple[Path, ...] = ()

    @property
    def out(self) -> LeftOut:
        """What is to be forgotten."""
        return LeftOut(frozenset(map(named, self.ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was found, and is gone unless one only looked.

    `rows` are the sequence numbers of the rows that forget, by chain; `blobs` counts stored states that were
    removed beyond those of the rows, `archived`, `demo` and `compared` what was emptied.
    """

    traces: tuple[Trace, ...]
    rows: dict[str, int]
    blobs: int
    archived: tuple[Position, ...]
    demo: int
    compared: int

    @property
    def anything(self) -> bool:
        """Tell whether there was anything to do."""
        known = any(found.fresh or found.states for found in self.traces)
        return bool(known or self.rows or self.blobs or self.archived or self.demo or self.compared)


def erase(settings: Settings, request: Request, *, crash: Crash = live) -> Erased:
    """Forget events everywhere; LeaseHeld, with the owner's name, while a run of this ledger is alive.

    Steps for `crash`: those of `trainers.erasing.Eraser`, before-part and after-part of an archive.
    """
    with ExitStack() as stack:
        ledger, blobs = _opened(settings, stack)
        require_history(ledger, request.chain)
        fences = _hold_all(ledger, settings, stack)
        eraser = Eraser(
            ledger=ledger,
            blobs=blobs,
            circumstance=circumstance,
            actor=whoever(),
            at_ms=time.time_ns() // 1_000_000,
            reason=request.reason,
            crash=crash,
        )
        traces, rows = list[Trace](), dict[str, int]()
        for chain in concerned(ledger, request.chain):
            traces.append(trace(ledger, blobs, chain, request.out))
            row = eraser.forget(fences[chain.name], traces[-1])
            rows |= {} if row is None else {chain.name: row.seq}
        gone = eraser.remove(request.out, [found.chain for found in traces])
        archived = [p for a in _archives(settings, request) for p in _empty(settings, request, a, crash)]
        demo = _demo_emptied(settings, request, write=True)
        stated = len({sha for found in traces for sha in found.states})
        return Erased(
            traces=tuple(traces),
            rows=rows,
            blobs=max(0, len(gone) - stated),
            archived=tuple(archived),
            demo=demo,
            compared=_comparisons(settings, request, traces, write=True),
        )


def look(settings: Settings, request: Request) -> Erased:
    """Return what `erase` would find; nothing is written, and no lease is taken."""
    with ExitStack() as stack:
        ledger, blobs = _opened(settings, stack)
        require_history(ledger, request.chain)
        meant = _meant(settings, request)
        archived = [
            raw.position
            for archive in _archives(settings, request)
            for raw in read_archive(archive)
            if meant(raw)
        ]
        traces = [trace(ledger, blobs, chain, request.out) for chain in concerned(ledger, request.chain)]
        return Erased(
            traces=tuple(traces),
            rows={},
            blobs=0,
            archived=tuple(archived),
            demo=_demo_emptied(settings, request, write=False),
            compared=_comparisons(settings, request, traces, write=False),
        )


def concerned(ledger: SqlLedger, name: str) -> list[Chain]:
    """Return the chains that read a topic which the named one reads, that one first."""
    chains = ledger.chains()
    read = {c.name: {span.topic for row in ledger.history(c.name)[-1:] for span in row.spans} for c in chains}
    there = [chain for chain in chains if chain.name == name or read[chain.name] & read[name]]
    return sorted(there, key=lambda chain: (chain.name != name, chain.name))


def _opened(settings: Settings, stack: ExitStack) -> tuple[SqlLedger, ErasableBlobs]:
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    stack.callback(ledger.close)
    return ledger, blobs


def _hold_all(ledger: SqlLedger, settings: Settings, stack: ExitStack) -> dict[str, Fence]:
    """Hold every chain of the ledger: a blob of any of them might be just being written."""
    fences = {}
    for chain in ledger.chains():
        fence, _ = stack.enter_context(holding(ledger, chain.name, lease_ms=settings.ledger.lease))
        fences[chain.name] = fence
    return fences


def _archives(settings: Settings, request: Request) -> list[Path]:
    """Return the archives that are read, written or named, each once, and only those that are there."""
    named_ones = (settings.archive_path, settings.archive, *request.archives)
    there = {Path(path).resolve(): Path(path) for path in named_ones if path is not None}
    return [path for path in there.values() if path.exists()]


def _meant(settings: Settings, request: Request) -> Callable[[RawRecord], bool]:
    decode, out = decoder(codec_rules(settings)), request.out
    return lambda raw: out.means(decode(raw), raw)


def _empty(settings: Settings, request: Request, archive: Path, crash: Crash) -> list[Position]:
    decode, meant = decoder(codec_rules(settings)), _meant(settings, request)
    return rewrite(archive, lambda raw: husk(decode(raw), raw) if meant(raw) else None, crash=crash)


def _demo_emptied(settings: Settings, request: Request, *, write: bool) -> int:
    """Take the events out of what the demo keeps of each window; return how many there were."""
    count = 0
    folder = settings.home_folder.joinpath(*_DEMO)
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        members: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        stay = [m for m in members if m["event_id"] not in request.ids]
        count += len(members) - len(stay)
        if write and len(stay) < len(members):
            _write(path, json.dumps(stay).encode())
    for stray in folder.glob("*.tmp") if write else ():  # half a window, left by a demo that was killed
        stray.unlink()
    return count + _asked_emptied(folder.parent / ASKED, request, write=write)


def _asked_emptied(path: Path, request: Request, *, write: bool) -> int:
    """Remove the request that the demo showed, if it is an event's; half a file may be anybody's."""
    if not path.is_file():
        return 0
    try:
        theirs = json.loads(path.read_bytes())["id"] in request.ids
    except ValueError:
        theirs = True
    if theirs and write:
        path.unlink()
    return int(theirs)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _comparisons(settings: Settings, request: Request, traces: Sequence[Trace], *, write: bool) -> int:
    """Take the events out of what servers of these chains wrote down of a shadow; return how many lines."""
    folders = [serving_folder(settings, found.chain) for found in traces]
    return sum(forget(folder, request.ids, _write if write else None) for folder in folders)
