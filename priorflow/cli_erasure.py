"""`priorflow erase` and `unlearn`: forget what a person said, and derive the chain that never heard it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from priorflow.exit_codes import ExitCode
from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from priorflow.config import Settings
    from priorflow.console import Console
    from priorflow.erasing import Erased, Request

Ids = Annotated[
    list[str] | None, typer.Option("--event-id", metavar="ID", help="An event, by its id; repeatable.")
]
Chain = Annotated[str | None, typer.Option(help="Chain; default: as configured.")]


def erase(
    at: Invocation,
    event_ids: Ids = None,
    reason: Annotated[
        str | None, typer.Option(help="Why; kept with the row, so name no person in it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    archive: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="An archive beside those of the settings; repeatable."),
    ] = None,
    chain: Chain = None,
) -> None:
    """Remove events, with their text and labels, from everything we hold; needs that no run is alive.

    Names the windows that learned from them, and the command that derives the chain without. May be repeated.
    """
    if not event_ids:
        msg = "name at least one event: --event-id ID"
        raise typer.BadParameter(msg)
    settings, console = at.settings(), at.console()
    from priorflow import erasing

    request = erasing.Request(
        ids=tuple(dict.fromkeys(event_ids)),
        chain=chain or settings.chain.name,
        reason=reason,
        archives=tuple(archive or ()),
    )
    with console.progress("looking" if dry_run else "erasing"):
        found = erasing.look(settings, request) if dry_run else erasing.erase(settings, request)
    _tell(console, request, found, dry_run=dry_run)
    looked = _in_kafka(settings, console, request, dry_run=dry_run)
    _offer(console, request, found)
    if not looked:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _in_kafka(settings: Settings, console: Console, request: Request, *, dry_run: bool) -> bool:
    """Tell what topics still hold; False if one holds on to letters, or the cluster cannot be asked.

    Everything else is done then.
    """
    import time

    from priorflow.erasing_topics import in_topics
    from stream.source import SourceError

    try:
        rows = in_topics(settings, request, write=not dry_run, now_ms=time.time_ns() // 1_000_000)
    except SourceError as away:
        console.warn(
            f"what Kafka still holds could not be looked up: {away}; erase again then", event="topics"
        )
        return False
    if rows:
        console.table("what Kafka still holds", rows, event="topic")
    held = [] if dry_run else [row for row in rows if row["command"]]
    for row in held:
        text = f"{row['topic']} still holds what was said; run `{row['command']}`"
        console.warn(text, event="held", topic=row["topic"], command=row["command"])
    return not held


def _tell(console: Console, request: Request, found: Erased, *, dry_run: bool) -> None:
    facts: dict[str, Any] = {
        "events": sorted(request.out.ids),
        "rows": found.rows,
        "states": sum(len(one.states) for one in found.traces),
        "blobs": found.blobs,
        "archived": [str(place) for place in found.archived],
        "demo": found.demo,
        "compared": found.compared,
        "dry_run": dry_run,
    }
    if not found.anything:
        console.say("nothing is left of it here", event="nothing_left", **facts)
        return
    parts = [
        f"{facts['states'] + found.blobs} stored states",
        f"{len(found.archived)} archived records",
        *([f"{found.demo} mails of the demo"] if found.demo else []),
        *([f"{found.compared} comparisons with a shadow"] if found.compared else []),
    ]
    would = "would be erased from" if dry_run else "erased from"
    row = "".join(f"; row {seq} of chain {name} says so" for name, seq in found.rows.items())
    console.say(f"{would} {', '.join(parts)}{row}", event="erased", **facts)


def _offer(console: Console, request: Request, found: Erased) -> None:
    """Say which windows learned from the events, and how to have a chain that did not."""
    learned = found.traces[0].windows
    windows = [row.index for row in learned]
    facts: dict[str, Any] = {"windows": windows, "snapshots": [row.sha for row in learned]}
    if not learned:
        console.say("no window that is remembered learned from it", event="learned_by", **facts)
        return
    ids = " ".join(f"--event-id {shlex.quote(one)}" for one in request.ids)
    here = "" if request.chain == "main" else f" --chain {shlex.quote(request.chain)}"
    name = f"{request.chain}-without-{min(request.out.ids)[:8]}"
    way = f"priorflow unlearn {ids}{here} --into {shlex.quote(name)}"
    listed = ", ".join(map(str, windows))
    text = f"window {listed} learned from it, and every belief since rests on that; a chain without: {way}"
    console.say(text, event="learned_by", command=way, **facts)


def unlearn(
    at: Invocation,
    into: Annotated[str, typer.Option(metavar="CHAIN", help="What the new chain is called.")],
    event_ids: Ids = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC:PARTITION:FROM-TO", help="A stretch of a topic, both ends; repeatable."),
    ] = None,
    chain: Chain = None,
    source: Annotated[
        str | None, typer.Option(help="`kafka`, or `archive:FOLDER`; default: as configured.")
    ] = None,
) -> None:
    """Derive a chain again without some records, into a new one, and say what that changed.

    It begins where the first window learned from them. Nothing is promoted; called again, it goes on.
    """
    if not event_ids and not offsets:
        msg = "say what to do without: --event-id ID, or --offsets TOPIC:PARTITION:FROM-TO"
        raise typer.BadParameter(msg)
    settings, console = at.settings({"source": source}), at.console()
    from dataclasses import asdict

    from priorflow import unlearning

    wanted = unlearning.Wanted(
        ids=tuple(dict.fromkeys(event_ids or ())),
        stretches=tuple(map(unlearning.parse_stretch, offsets or ())),
        chain=chain or settings.chain.name,
        into=into,
    )
    changed = unlearning.unlearn(settings, wanted, console=console)
    console.table(f"{wanted.chain} and {into}", [asdict(one) for one in changed], event="changed")
    left, open_ = sum(one.left_out for one in changed), sum(one.after is None for one in changed)
    text = f"{len(changed)} windows, {left} members left out"
    text += f"; the last {open_} are not full yet" if open_ else ""
    way = f"priorflow run --set chain.name={shlex.quote(into)}"
    text += f". Nothing was promoted; {way} goes on with it"
    console.say(text, event="unlearned", chain=into, windows=len(changed), left_out=left, command=way)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"erase": erase, "unlearn": unlearn}
