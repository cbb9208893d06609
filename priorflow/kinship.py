"""A chain and its kin: those that it was derived from, and those that were derived from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain as joined
from typing import Final, final

from posterior.snapshot import Chain, Ledger, LedgerCorrupt, Snapshot
from priorflow.descent import shas
from trainers.erasing import lineage

SET_IN: Final = 3  # derived chains that stand in the tree; the others are a line each


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A chain that was derived from another: the row that it left, its rows, and when the last was committed.

    `rows` is None where they are damaged, `at_ms` where there is no row.
    """

    name: str
    sha: str
    left: Snapshot
    rows: Sequence[Snapshot] | None = None
    at_ms: int | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """The rows that make the tree, and what was derived from the chain, newest first."""

    rows: Sequence[Snapshot]
    derived: Sequence[Derived]


def kin(ledger: Ledger, chain: Chain, history: Sequence[Snapshot]) -> Kin:
    """Return a chain's rows, behind those that it was derived from and before those derived from it."""
    own = [*(lineage(ledger, chain) if chain.origin else history)]
    known = dict(zip(shas(own), own, strict=True))
    found = _derived(ledger, {row.chain for row in own}, known)
    newest = sorted(found, key=lambda one: (one.at_ms or 0, one.name), reverse=True)
    inside = joined.from_iterable(one.rows or () for one in newest[:SET_IN][::-1])
    return Kin(rows=[*own, *inside], derived=newest)


def _derived(ledger: Ledger, names: Collection[str], known: Mapping[str, Snapshot]) -> Iterator[Derived]:
    """Yield the chains that begin at a known row; one that is damaged is no reason to show none."""
    for one in ledger.chains():
        if one.origin is not None and one.origin in known and one.name not in names:
            yield _read(ledger, Derived(name=one.name, sha=one.origin, left=known[one.origin]))


def _read(ledger: Ledger, found: Derived) -> Derived:
    """Return the chain with its rows, as far as they can be read."""
    try:
        rows = ledger.history(found.name)
        head = ledger.snapshot(rows[-1].sha) if rows else None
    except LedgerCorrupt:
        return found
    at_ms = None if head is None else head[1].at_ms
    return Derived(name=found.name, sha=found.sha, left=found.left, rows=rows, at_ms=at_ms)
