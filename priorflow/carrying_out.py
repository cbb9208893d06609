"""What follows a decision that a person made: aliases, and whoever is to hear of it.

The line is recorded by then, so all of this may fail: a run repeats it. Whoever decided is told what
stands and who is yet to hear of it; the decision was taken, so its command has not failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from connectors.aliases import Aliases
from posterior.snapshot import Blobs, Decision, Ledger
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.flavour import publishing
from priorflow.masking import without_passwords
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
    follow(settings, ledger, blobs, line, console, at_ms=line.at_ms)


def follow(
    settings: Settings, ledger: Ledger, blobs: Blobs, line: Decision, console: Console, *, at_ms: int
) -> None:
    """Point the aliases by the log and tell the webhook; done already, it changes nothing.

    `at_ms` is now: the time of a line that is written should an alias have been moved by hand.
    """
    if settings.mlflow.enabled:
        with _standing(line, console, "aliases", event="not_publishing"):
            _point(settings, ledger, blobs, line, console, at_ms=at_ms)
    with _standing(line, console, "the webhook", event="not_telling"):
        tell_once(settings, ledger, line.chain, console)


def _point(
    settings: Settings, ledger: Ledger, blobs: Blobs, line: Decision, console: Console, *, at_ms: int
) -> None:
    versions = publishing(settings, ledger)
    aliases = Aliases(ledger=ledger, blobs=blobs, registry=versions, chain=line.chain)
    found = aliases.settle(at_ms=at_ms).aliases
    console.say(f"alias champion is version {found.get('champion')}", event="aliases", aliases=dict(found))


@contextmanager
def _standing(line: Decision, console: Console, who: str, *, event: str) -> Iterator[None]:
    """Have a fault of what follows said, not raised: a command that failed would be given again."""
    try:
        yield
    except Exception as failed:  # noqa: BLE001 - whatever it is, the line is recorded, and a run repeats this
        why = without_passwords(str(failed)) or type(failed).__name__
        console.warn(
            f"line {line.seq} stands; {who} could not be told, the next run does that: {why}",
            event=event,
            line=line.seq,
            error=why,
        )
