"""`priorflow labels`: which classes a chain knows, and another name for one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from priorflow.invocation import Invocation

GROUP: Final = "labels"
HELP: Final = "List and rename classes."

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
    settings = at.settings()
    from priorflow.deciding import whoever
    from priorflow.opening import reading, require_history
    from priorflow.run import circumstance
    from priorflow.tenure import holding
    from trainers.relabelling import Renamer

    name, console = chain or settings.chain.name, at.console()
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
            row = renamer.rename(fence, old, new)
    facts = {"chain": name, "old": old, "new": new}
    if row is None:
        console.say(f"{old!r} is called {new!r} already", event="renamed", row=None, **facts)
        return
    text = (
        f"{old!r} is called {new!r} from row {row.seq} on; answers follow when a later snapshot is promoted"
    )
    console.say(text, event="renamed", row=row.seq, snapshot=row.sha, **facts)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"list": list_labels, "rename": rename}
