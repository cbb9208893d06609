"""What follows a decision that a person made: aliases, and whoever is to hear of it.

The line is recorded by then, so all of this may fail: a run repeats it.
"""

from __future__ import annotations

from connectors.aliases import Aliases
from posterior.registry import RegistryError
from posterior.snapshot import Blobs, Decision, Ledger
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.flavour import publishing
from priorflow.quantities import format_instant
from priorflow.telling import tell_once


def carry_out(settings: Settings, ledger: Ledger, blobs: Blobs, line: Decision, console: Console) -> None:
    """Say what was decided, point the aliases, and tell the webhook, as far as they are there."""
    done = {"promote": "promoted", "rollback": "rolled back to"}[line.action]
    console.say(
        f"{done} {line.snapshot[:12]}, line {line.seq} by {line.actor}",
        event=line.action,
        snapshot=line.snapshot,
        line=line.seq,
        at=format_instant(line.at_ms),
        hash=line.hash,
    )
    if settings.mlflow.enabled:
        _point(settings, ledger, blobs, line, console)
    tell_once(settings, ledger, line.chain, console)


def _point(settings: Settings, ledger: Ledger, blobs: Blobs, line: Decision, console: Console) -> None:
    versions = publishing(settings, ledger)
    aliases = Aliases(ledger=ledger, blobs=blobs, registry=versions, chain=line.chain)
    try:
        found = aliases.settle(at_ms=line.at_ms).aliases
    except RegistryError as away:
        console.warn(f"recorded; aliases follow once MLflow answers: {away}", event="not_publishing")
        return
    console.say(f"alias champion is version {found.get('champion')}", event="aliases", aliases=dict(found))
