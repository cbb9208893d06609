"""`priorflow promote`, `rollback` and `history`: who answers, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from posterior.snapshot import Decision
    from priorflow.config import Settings
    from priorflow.console import Console
    from priorflow.deciding import Bench, ContinueFrom

Chain = Annotated[str | None, typer.Option(help="Chain; default: as configured.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the decision log.")]


class Onward(StrEnum):
    """What learning goes on from."""

    HEAD = "head"
    CHAMPION = "champion"


def promote(
    at: Invocation,
    sha: Annotated[
        str | None,
        typer.Argument(metavar="SNAPSHOT", help="Sha, or its beginning; default: the newest candidate."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go past the gates; needs --reason.")] = False,
    reason: Reason = None,
    chain: Chain = None,
) -> None:
    """Put a snapshot in charge, if the gates' newest finding on it allows."""
    settings = at.settings()
    with _bench(settings, chain, at.console()) as (bench, tell):
        tell(bench.promote(sha, force=force, reason=reason))


def rollback(
    at: Invocation,
    to: Annotated[
        str | None,
        typer.Option(metavar="SNAPSHOT", help="A former champion; default: the one before the present."),
    ] = None,
    reason: Reason = None,
    continue_from: Annotated[
        Onward, typer.Option("--continue-from", help="What learning goes on from.")
    ] = Onward.HEAD,
    relearn: Annotated[
        bool,
        typer.Option(
            "--relearn", help="Learning goes back to that champion, and reads again what came since."
        ),
    ] = False,
    chain: Chain = None,
) -> None:
    """Put a former champion in charge again."""
    settings = at.settings()
    with _bench(settings, chain, at.console()) as (bench, tell):
        onward: ContinueFrom = "relearn" if relearn else continue_from.value
        tell(bench.roll_back(to, reason=reason, continue_from=onward))


def history(
    at: Invocation,
    chain: Chain = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many lines, the newest.")] = None,
    decided: Annotated[
        bool, typer.Option("--decided", help="Only lines that put somebody in charge.")
    ] = False,
) -> None:
    """Show the decision log, once its hashes are verified: who, what, why, by which numbers."""
    settings = at.settings()
    from posterior.snapshot import IN_CHARGE
    from priorflow.console import JsonLines
    from priorflow.history import in_full, told
    from priorflow.opening import reading, require_history

    name, console = chain or settings.chain.name, at.console()
    with reading(settings) as (ledger, _):
        rows = require_history(ledger, name)
        log = ledger.decisions(name)  # refuses to be read if its hashes do not chain
        lines = [line for line in log if not decided or line.action in IN_CHARGE]
        shown = in_full if isinstance(console, JsonLines) else told
        table = [shown(line, ledger, rows) for line in (lines if last is None else lines[-last:])]
    console.table(f"decisions on {name}", table, event="decision")
    console.say(f"{len(log)} lines, the hash chain is whole", event="verified", lines=len(log))


@contextmanager
def _bench(
    settings: Settings, chain: str | None, console: Console
) -> Iterator[tuple[Bench, Callable[[Decision], None]]]:
    """Open the ledger, and have all that follows a decision follow it.

    Also where the decision stands already: whoever took it may have died before anything followed.
    """
    from priorflow.carrying_out import carry_out, follow
    from priorflow.deciding import Bench, StandsAlready, whoever
    from priorflow.opening import reading, require_history

    name = chain or settings.chain.name
    with reading(settings) as (ledger, blobs):
        require_history(ledger, name)
        bench = Bench(
            ledger=ledger, blobs=blobs, chain=name, actor=whoever(), at_ms=time.time_ns() // 1_000_000
        )

        def tell(line: Decision) -> None:
            carry_out(settings, ledger, blobs, line, console)

        try:
            yield bench, tell
        except StandsAlready as already:
            follow(settings, ledger, blobs, already.line, console, at_ms=bench.at_ms)
            raise


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "promote": promote,
    "rollback": rollback,
    "history": history,
}
