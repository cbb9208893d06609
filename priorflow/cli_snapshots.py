"""`priorflow snapshots`: look at a chain, compare two beliefs, verify what is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from priorflow.exit_codes import ExitCode
from priorflow.invocation import Invocation

GROUP: Final = "snapshots"
HELP: Final = "List, show, compare and verify snapshots."

Chain = Annotated[str | None, typer.Option(help="Chain; default: as configured.")]
Sha = Annotated[str, typer.Argument(help="Sha of a snapshot, or its first 6 or more characters.")]


def ls(
    at: Invocation,
    chain: Chain = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Progress rows as well, which hold no new belief.")
    ] = False,
) -> None:
    """List the snapshots of a chain, oldest first."""
    settings = at.settings()
    from priorflow.lineage import listing
    from priorflow.opening import reading, require_history

    name = chain or settings.chain.name
    with reading(settings) as (ledger, _):
        history = require_history(ledger, name)
        rows = listing(ledger, history, progress=all_rows)
    shown = rows if last is None else rows[-last:]
    at.console().table(f"chain {name}", shown, event="snapshot")


def show(at: Invocation, sha: Sha) -> None:
    """Show one snapshot: lineage, positions, accounting, what it was learned with and where it is."""
    settings = at.settings()
    from priorflow.lineage import portrait
    from priorflow.opening import reading, require_snapshot

    with reading(settings) as (ledger, _):
        value = portrait(ledger, require_snapshot(ledger, sha))
    at.console().show(value, event="snapshot")


def diff(at: Invocation, before: Sha, after: Sha) -> None:
    """Compare two snapshots: settings, labels, evidence, and how far each site's belief moved."""
    settings = at.settings()
    from priorflow.lineage import parted
    from priorflow.movement import moved
    from priorflow.opening import reading, require_snapshot

    with reading(settings) as (ledger, blobs):
        one, two = require_snapshot(ledger, before), require_snapshot(ledger, after)
        rows = parted(one, two)
        sites = moved(blobs.get(one.posterior), blobs.get(two.posterior))
    console = at.console()
    console.table("what differs", rows, event="differs")
    console.table("how far each site moved", sites, event="moved")


def verify(
    at: Invocation,
    sha: Annotated[str | None, typer.Argument(help="Only this one; default: the chain.")] = None,
    chain: Chain = None,
) -> None:
    """Verify stored bytes, hashes, lineage, positions and accounting; trains nothing (see replay)."""
    settings = at.settings()
    from posterior.snapshot import stand_in
    from priorflow.lineage import faults
    from priorflow.opening import reading, require_history, require_snapshot

    console, bad, erased = at.console(), 0, list[int]()
    with reading(settings) as (ledger, blobs):
        name = chain or settings.chain.name
        if sha is not None:
            name = require_snapshot(ledger, sha).chain
        line = require_history(ledger, name)
        ledger.decisions(name)  # refuses to be read if its hashes do not chain
        erasures = ledger.erasures(name)
        pairs = [
            (row, parent)
            for row, parent in zip(line, (None, *line), strict=False)
            if sha is None or row.sha.startswith(sha)
        ]
        with console.progress("verifying", total=len(pairs)) as progress:
            for row, parent in pairs:
                found = stand_in(erasures, row.stream_state)
                erased += [] if found is None else [found.seq]
                for fault in faults(row, parent, ledger, blobs):
                    bad += 1
                    console.warn(f"{row.sha[:12]}: {fault}", event="fault", sha=row.sha)
                progress.advance()
    text = f"{len(pairs)} snapshots verified, {bad} faults"
    if erased:
        by = ", ".join(map(str, sorted(set(erased))))
        text += (
            f"; states of the stream of {len(erased)} were erased in part by row {by}, and the rest verifies"
        )
    console.say(text, event="verified", snapshots=len(pairs), faults=bad, erased=len(erased))
    if bad:
        raise typer.Exit(ExitCode.LOST)


def repair(
    at: Invocation,
    chain: Chain = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the chain from whoever holds its lease.")
    ] = False,
) -> None:
    """Set aside the rows above the newest one that verifies; the next run learns them again."""
    settings = at.settings()
    from connectors.lease import this_owner
    from priorflow.opening import reading

    name = chain or settings.chain.name
    with reading(settings) as (ledger, _):
        ttl = settings.ledger.lease / 1000
        fence = ledger.acquire(name, owner=this_owner(), ttl_s=ttl, takeover=takeover)
        try:
            aside = ledger.truncate(fence, "set aside by `snapshots repair`")
        finally:
            ledger.release(fence)
    text = f"chain {name}: {len(aside)} rows set aside" if aside else f"chain {name} verifies"
    at.console().say(text, event="repaired", chain=name, set_aside=list(aside))


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "ls": ls,
    "show": show,
    "diff": diff,
    "verify": verify,
    "repair": repair,
}
