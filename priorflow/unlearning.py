"""`priorflow unlearn`: derive a chain again without some records, from where it first learned from one.

    main      root ── 1 ── 2 ── 3 ── 4 = head        3 is the first window that learned from them
                           │
    without                └── branch ── 3' ── 4'    the same log, in which these records are empty

What lies before is shared, not copied: the new chain's first row stands on the last one that is clean.
Nothing is promoted and the old chain is not touched. Called again it goes on where it died.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from connectors.blobs import open_blobs
from connectors.crash import Crash, live
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import NAMES, Blobs, LedgerError, Snapshot, forgotten
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.deciding import whoever
from priorflow.parting import WINDOWED, Change, changes
from priorflow.replay import copy_floors, rules_for
from priorflow.run import circumstance, execute
from stream.erasure import LeftOut, Stretch, left_out_of, named, without
from stream.relabelling import AS_THEY_CAME, names_of, renamed
from trainers.erasing import lineage, trace
from trainers.line import in_force, kept, renamings, state_behind
from trainers.window import Updater

LEFT_OUT: Final = "left_out"  # in a first row: which events (as sha256) and stretches it does without
_STRETCH: Final = re.compile(
    r"(?P<topic>[A-Za-z0-9._-]+):(?P<partition>\d+):(?P<first>\d+)-(?P<last>\d+)",
)
_PLACE: Final = re.compile(r"(?P<topic>.+)\[(?P<partition>\d+)\]@(?P<offset>\d+)")


class CannotUnlearn(LedgerError):
    """There is nothing to derive again, or the name is taken; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to do without, of which chain, and what the new one is called."""

    ids: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    chain: str
    into: str

    @property
    def out(self) -> LeftOut:
        """What is left out."""
        return LeftOut(frozenset(map(named, self.ids)), tuple(sorted(set(self.stretches))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Where two chains part: the last row they share, the old one's rows to its head, what is left out.

    `line` holds rows in force; `renamed` old and new names of classes renamed behind the shared row.
    """

    shared: Snapshot
    line: tuple[Snapshot, ...]
    out: LeftOut
    renamed: tuple[tuple[str, str], ...]

    @property
    def windows(self) -> int:
        """How many windows in force the old chain closed behind the shared row."""
        return sum(row.kind in WINDOWED and row.index > self.shared.index for row in self.line)


def parse_stretch(text: str) -> Stretch:
    """Read TOPIC:PARTITION:FROM-TO, both ends included; CannotUnlearn if it is none."""
    said = _STRETCH.fullmatch(text)
    if said is None or int(said["first"]) > int(said["last"]):
        msg = f"{text!r} is no stretch of a topic; write TOPIC:PARTITION:FROM-TO, such as mails:2:100-140"
        raise CannotUnlearn(msg)
    return Stretch(said["topic"], int(said["partition"]), int(said["first"]), int(said["last"]))


def unlearn(
    settings: Settings,
    wanted: Wanted,
    *,
    source: str | None = None,
    console: Console,
    crash: Crash = live,
    updater: Updater | None = None,
) -> list[Change]:
    """Derive the chain without these records as far as it has come; return what is different, by window.

    Steps for `crash`: after-chain, before-first-row, and those of a run.
    """
    chosen = settings.model_copy(
        update={
            "chain": settings.chain.model_copy(update={"name": wanted.into}),
            "source": source or settings.source,
            "mlflow": settings.mlflow.model_copy(update={"enabled": False}),
            "gate": settings.gate.model_copy(update={"enabled": False}),
            "archive": None,
        }
    )
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    try:
        rules_for(settings, ledger, wanted.chain)  # or settings are not the chain's, and it says which
        fork = parting(ledger, blobs, wanted)
        head = begin(ledger, blobs, wanted, fork, crash)
        left = fork.shared.index + fork.windows - head.index
        if left > 0:
            execute(chosen, until_end=True, max_windows=left, console=console, crash=crash, updater=updater)
        rows = ledger.history(wanted.into)
        return changes(ledger, blobs, fork.line, in_force(rows, rows[-1]))
    finally:
        ledger.close()


def parting(ledger: SqlLedger, blobs: Blobs, wanted: Wanted) -> Fork:
    """Return where the chains part: before the first window that learned from any of these records."""
    chain = ledger.chain(wanted.chain)
    assert chain is not None, wanted.chain  # its settings were compared
    rows = lineage(ledger, chain)
    line = in_force(rows, rows[-1])
    hit = {row.sha for row in line if _learned_in(ledger, row, wanted.out)}
    if wanted.ids:
        hit |= {row.sha for row in trace(ledger, blobs, chain, LeftOut(wanted.out.ids)).windows}
    first = next((place for place, row in enumerate(line) if row.sha in hit), None)
    if first is None:
        msg = (
            f"no window of chain {wanted.chain} that is remembered learned from these records: there is "
            "nothing to derive again; `priorflow erase` takes an event out of what still waits"
        )
        raise CannotUnlearn(msg)
    gone = frozenset[str]().union(*(forgotten(ledger.erasures(name)) for name in {row.chain for row in line}))
    shared = line[first - 1]
    return Fork(
        shared=shared,
        line=tuple(line),
        out=wanted.out | LeftOut(gone),
        renamed=tuple(renamings(rows[rows.index(shared) + 1 :])),
    )


def begin(ledger: SqlLedger, blobs: Blobs, wanted: Wanted, fork: Fork, crash: Crash = live) -> Snapshot:
    """Create the chain and its first row, or return the head of one that was begun just so."""
    old = ledger.chain(wanted.chain)
    assert old is not None, wanted.chain
    there, chain = ledger.chain(wanted.into), replace(old, name=wanted.into, origin=fork.shared.sha)
    if there is not None and there != chain:
        msg = f"chain {wanted.into!r} exists and is another; choose a new name for --into"
        raise CannotUnlearn(msg)
    ledger.create(chain)
    crash("after-chain")
    head = ledger.head(wanted.into)
    if head is None:
        copy_floors(ledger, wanted.chain, wanted.into)
        crash("before-first-row")
        return _first_row(ledger, blobs, wanted, fork)
    told = ledger.history(wanted.into)[0].report[LEFT_OUT]
    if left_out_of(told) != fork.out:
        msg = f"chain {wanted.into!r} was begun without other records; choose a new name for --into"
        raise CannotUnlearn(msg)
    return head


def _first_row(ledger: SqlLedger, blobs: Blobs, wanted: Wanted, fork: Fork) -> Snapshot:
    """Commit the row that both chains share, without what is left out."""
    shared = fork.shared
    content = without(state_behind(blobs, ledger.erasures(shared.chain), shared), fork.out)
    names = AS_THEY_CAME
    for old, new in fork.renamed:  # what was renamed since bears its new name from the start
        content, names = renamed(content, old, new), names.then(old, new)
    called = names_of(json.loads(content)).present
    report = {
        LEFT_OUT: fork.out.dump(),
        "by": whoever(),
        "at_ms": time.time_ns() // 1_000_000,
        **({NAMES: dict(called)} if called else {}),
        **kept(shared, shared.posterior),
    }
    row = replace(
        shared,
        chain=wanted.into,
        seq=0,
        kind="branch",
        parent=shared.sha,
        plan=None,
        stream_state=blobs.put(content),
        labels=tuple(map(names.of, shared.labels)),
        counts=dict(json.loads(content)["counts"]),
        spans_before=shared.spans,
        report=report,
        rejected=(),
    )
    fence = ledger.acquire(wanted.into, owner="unlearn", ttl_s=10)
    try:
        ledger.commit(fence, row, circumstance({}))
    finally:
        ledger.release(fence)
    return row


def _learned_in(ledger: SqlLedger, row: Snapshot, out: LeftOut) -> bool:
    """Tell whether a window learned from a record in a stretch: its plan names positions."""
    plan = ledger.plan(row.chain, row.plan) if row.kind == "learned" and row.plan and out.stretches else None
    members: Sequence[Sequence[str]] = () if plan is None else plan.content["members"]
    return any(out.at(_place(at)) for member in members for at in (member[0], member[2]))


def _place(text: str) -> tuple[str, int, int]:
    said = _PLACE.fullmatch(text)
    assert said is not None, text
    return said["topic"], int(said["partition"]), int(said["offset"])
