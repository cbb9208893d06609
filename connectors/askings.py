"""Who is about to move an alias: written down before, crossed out after, so that a late move shows as one.

A registry compares nothing. Whoever reads the log, falls asleep and then points the alias undoes what others
have pointed meanwhile, and what is found there looks like a person's hand. So each move is first an asking:
a row of the outbox under the line of the log on whose behalf it is made, by a name that no other has.

An asking stands from before the move until nothing can come of it any more. Two may know that: who asked,
once it has moved and has then found the log as it was; and, of one that had certainly died before, whoever
has moved the alias since and found the log as it was (what a dead process had sent has arrived by then). So
while a move may still show, its asking stands, whoever sleeps, dies or overtakes whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from connectors.lease import is_gone, this_owner
from posterior.snapshot import IN_CHARGE, Decision, Ledger

_DONE: Final = "-"  # instead of the version, once nothing can come of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One move to `version` on behalf of a line; `name` is who asks, a blank, and what no other has."""

    line: Decision
    name: str
    version: str

    @property
    def stands(self) -> bool:
        """Tell whether something may still come of it."""
        return self.version != _DONE

    @property
    def gone(self) -> bool:
        """Tell whether who asked has certainly died."""
        return is_gone(self.name.partition(" ")[0])

    def is_by(self, who: str) -> bool:
        """Tell whether it is one of somebody's."""
        return self.name.rpartition(" ")[0] == who


def this_asker() -> str:
    """Name one of those in this process who may ask: its owner's name, as of a lease, and a word."""
    return f"{this_owner()} {_word()}"


def ask(ledger: Ledger, target: str, who: str, line: Decision, version: str) -> Asking:
    """Write down that somebody is about to move the alias."""
    asking = Asking(line=line, name=f"{who} {_word()}", version=version)
    ledger.published(line.hash, _target(target) + asking.name, version)
    return asking


def cross_out(ledger: Ledger, target: str, asking: Asking) -> None:
    """Write down that nothing can come of it any more."""
    ledger.published(asking.line.hash, _target(target) + asking.name, _DONE)


def askings(ledger: Ledger, target: str, log: Sequence[Decision]) -> Iterator[Asking]:
    """Yield all that was ever asked, also what is crossed out, newest line first."""
    start = _target(target)
    for line in (one for one in reversed(log) if one.action in IN_CHARGE):
        for row in ledger.posts(line.hash):
            if row.target.startswith(start) and row.reference is not None:
                yield Asking(line=line, name=row.target.removeprefix(start), version=row.reference)


def _target(target: str) -> str:
    return f"{target}-asking "


def _word() -> str:
    return uuid4().hex[:12]
