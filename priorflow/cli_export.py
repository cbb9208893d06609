"""`priorflow export`: hand what was learned to programs that are not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from priorflow.invocation import Invocation


class Alias(StrEnum):
    """A snapshot by what it is to its chain."""

    CHAMPION = "champion"
    HEAD = "head"


def export(
    at: Invocation,
    peft: Annotated[Path, typer.Option(metavar="FOLDER", help="Write a Hugging Face PEFT adapter here.")],
    snapshot: Annotated[
        str | None, typer.Argument(help="Sha of a snapshot, or its first 6 or more characters.")
    ] = None,
    alias: Annotated[
        Alias | None, typer.Option(help="In place of a sha: the champion (the default), or the head.")
    ] = None,
    draw: Annotated[
        int | None, typer.Option(min=0, help="This draw of those that predict, from 0; default: the mean.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Whose weights, where tasks have weights of their own.")
    ] = None,
    new_task: Annotated[
        bool, typer.Option("--new-task", help="The weights of a task that nobody has seen.")
    ] = False,
    chain: Annotated[str | None, typer.Option(help="Chain; default: as configured.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Over another adapter in the folder.")] = False,
) -> None:
    """Write a snapshot's mean, or one of its draws, as an adapter that PEFT loads."""
    if snapshot is not None and (alias is not None or chain is not None):
        msg = "a sha says which snapshot; leave --alias and --chain out"
        raise typer.BadParameter(msg)
    if task is not None and new_task:
        msg = "--task and --new-task exclude each other"
        raise typer.BadParameter(msg)
    settings = at.settings()
    from priorflow.export import Wanted, export_peft

    wanted = Wanted(
        snapshot=snapshot,
        alias="head" if alias is Alias.HEAD else "champion",
        chain=chain,
        draw=draw,
        task=task,
        new_task=new_task,
    )
    made, console = export_peft(settings, wanted, peft, force=force), at.console()
    for one in made.missing:
        tell = console.warn if one.what == "panel" else console.say
        tell(f"not in the folder: {one.text}", event="left_out", what=one.what)
    origin = made.origin
    facts = {"adapter": origin.name, "folder": str(peft), "snapshot": origin.snapshot}
    console.say(f"{peft} holds the adapter {origin.name}", event="exported", **facts)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"export": export}
