"""`priorflow labels`: which classes a chain knows, another name for one of them, one name for two."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from posterior.snapshot import Fence, Snapshot
    from trainers.relabelling import Renamer

GROUP: Final = "labels"
HELP: Final = "List, rename and merge classes."

_FOLLOW: Final = "answers follow when a later snapshot is promoted"

Chain = Annotated[str | None, typer.Option(help="Chain; default: as configured.")]


def list_labels(at: Invocation, chain: Chain = None) -> None:
    """List the classes in order of first sight: examples learned, first window, and former names."""
    settings = at.settings()
    from priorflow.labelling import classes
    from priorflow.opening import reading, require_history

    name = chain or settings.chain.name
    with reading(settings) as (ledger, _):
        rows = classes(require_history(ledger, name))
    at.console().table(f"classes of {name}", rows, event="label")


def rename(
    at: Invocation,
    old: Annotated[str, typer.Argument(metavar="OLD", help="What the class is called now.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    reason: Annotated[str | None, typer.Option(help="Why; kept with the row.")] = None,
    chain: Chain = None,
) -> None:
    """Call a class by another name from here on; needs that no run of the chain is alive.

    Labels that still come under the old name are taken under the new one. Snapshots of before keep the old.
    """
    name, row = _called(at, chain, reason, lambda renamer, fence: renamer.rename(fence, old, new))
    console, facts = at.console(), {"chain": name, "old": old, "new": new}
    if row is None:
        console.say(f"{old!r} is called {new!r} already", event="renamed", row=None, **facts)
        return
    text = f"{old!r} is called {new!r} from row {row.seq} on; {_FOLLOW}"
    console.say(text, event="renamed", row=row.seq, snapshot=row.sha, **facts)


def merge(
    at: Invocation,
    one: Annotated[str, typer.Argument(metavar="A", help="A class.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    into: Annotated[
        str, typer.Option(metavar="C", help="What both are to be called; may be one of the two.")
    ],
    reason: Annotated[str | None, typer.Option(help="Why; kept with the row.")] = None,
    chain: Chain = None,
) -> None:
    """Make two classes one from here on; needs that no run of the chain is alive. There is no way back.

    Its probability is the sum of both, all else stands; labels of either are taken under the one name.
    """
    name, row = _called(at, chain, reason, lambda renamer, fence: renamer.merge(fence, one, other, into))
    console, facts = at.console(), {"chain": name, "merged": [one, other], "into": into}
    if row is None:
        console.say(f"{one!r} and {other!r} are {into!r} already", event="merged", row=None, **facts)
        return
    text = f"{one!r} and {other!r} are {into!r} from row {row.seq} on; {_FOLLOW}"
    console.say(text, event="merged", row=row.seq, snapshot=row.sha, **facts)


def _called(
    at: Invocation,
    chain: str | None,
    reason: str | None,
    call: Callable[[Renamer, Fence], Snapshot | None],
) -> tuple[str, Snapshot | None]:
    """Call classes otherwise, under the chain's lease; return it, and the row if there was anything to do."""
    settings = at.settings()
    from priorflow.deciding import whoever
    from priorflow.opening import reading, require_history
    from priorflow.run import circumstance
    from priorflow.tenure import holding
    from trainers.relabelling import Renamer

    name = chain or settings.chain.name
    with reading(settings) as (ledger, blobs):
        require_history(ledger, name)
        with holding(ledger, name, lease_ms=settings.ledger.lease) as (fence, _):
            renamer = Renamer(
                ledger=ledger,
                blobs=blobs,
                circumstance=circumstance,
                actor=whoever(),
                at_ms=time.time_ns() // 1_000_000,
                reason=reason,
            )
            return name, call(renamer, fence)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"list": list_labels, "rename": rename, "merge": merge}
