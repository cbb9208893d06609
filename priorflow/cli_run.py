"""`priorflow demo`, `run` and `replay`: what learns, and what learns again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from priorflow.exit_codes import ExitCode
from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from priorflow.config import Settings
    from priorflow.console import Console

Source = Annotated[str | None, typer.Option(help="`kafka`, or `archive:FOLDER`; default: as configured.")]


def demo(at: Invocation) -> None:
    """Run the main job end to end on real mails, and write a report; goes on where it stopped."""
    settings = at.settings()
    from priorflow.demo import main

    if main(settings, at.console()):
        raise typer.Exit(ExitCode.BUG)


def run(
    at: Invocation,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the present end of the topics.")
    ] = False,
    windows: Annotated[int | None, typer.Option(min=1, help="Stop after so many windows.")] = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="Take the chain from whoever holds its lease.")
    ] = False,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka cluster, or `embedded`.")
    ] = None,
    source: Source = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also keep every record read in this archive.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The kind of belief; a chain keeps the one it began with."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Ray Train workers; 0 learns in this process.")
    ] = None,
    page: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Show a page of how it goes; 0 takes a free port."
        ),
    ] = None,
) -> None:
    """Learn from the stream until stopped; goes on from the last commit."""
    settings = at.settings(
        {
            "kafka.bootstrap": bootstrap,
            "source": source,
            "archive": None if archive is None else str(archive),
            "family.name": family,
            "learn.workers": workers,
        }
    )
    from priorflow.run import execute

    console = at.console()
    with _page(settings, page, console):
        execute(settings, until_end=until_end, max_windows=windows, takeover=takeover, console=console)


def _page(settings: Settings, port: int | None, console: Console) -> AbstractContextManager[None]:
    if port is None:
        return nullcontext()
    from priorflow.serving.looking import looked_at

    return looked_at(settings, port, console)


def replay(
    at: Invocation,
    chain: Annotated[str | None, typer.Option(help="Chain to replay; default: as configured.")] = None,
    first: Annotated[int | None, typer.Option("--from", min=1, help="First window.")] = None,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Last window.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Learn every window again and compare hashes.")
    ] = False,
    into: Annotated[
        str | None, typer.Option(metavar="CHAIN", help="Learn into a new chain: what if ...?")
    ] = None,
    source: Source = None,
) -> None:
    """Learn from history again: `--verify` to prove a chain, `--into` with `--set` to ask what if.

    A new chain may have another family, window length or any other setting; it never touches aliases.
    """
    if verify == (into is not None):
        msg = "say either --verify, to prove a chain, or --into CHAIN, to learn into a new one"
        raise typer.BadParameter(msg)
    settings = at.settings({"source": source})
    origin = chain or settings.chain.name
    from priorflow import replay as replaying

    if into is not None:
        replaying.branch(
            settings,
            into=into,
            from_chain=origin,
            first=first,
            last=last,
            source=source,
            console=at.console(),
        )
        return
    verdicts = replaying.verify(
        settings, chain=origin, first=first, last=last, source=source, console=at.console()
    )
    _conclude(at, origin, verdicts)


def _conclude(at: Invocation, chain: str, verdicts: Sequence[tuple[int, str, bool | None]]) -> None:
    """Show what was the same again; any difference is an exit status of its own."""
    console = at.console()
    rows = [{"window": i, "snapshot": sha, "same": same} for i, sha, same in verdicts]
    console.table(f"replay of {chain}", rows, event="verified")
    differ = [index for index, _, same in verdicts if same is False]
    erased = [index for index, _, same in verdicts if same is None]
    facts = {"chain": chain, "windows": len(rows), "differ": differ, "erased": erased}
    if differ:
        listed = ", ".join(map(str, differ))
        console.warn(f"not the same again: window {listed}", event="replay", **facts)
        raise typer.Exit(ExitCode.DIFFERS)
    text = f"{len(rows) - len(erased)} windows bit for bit the same again"
    text += f", {len(erased)} learned from what was erased since" if erased else ""
    console.say(text, event="replay", **facts)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"demo": demo, "run": run, "replay": replay}
