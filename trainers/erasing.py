"""Forget an event: no state of the stream that is stored speaks of it any more, and none ever will again.

    ... row ── row ── head ── erased ── learned ...
         │      │      │        └── the head's tensors and positions; its state without the event
         └──────┴──────┴── each state that spoke of it has another in its place; the old one is removed

The row comes first, in one transaction with the list of what stands in whose place; blobs go afterwards. So a
crash leaves either nothing done or something that the same call finishes. Belief is not touched: windows
that learned from the event are named in the row, and `unlearn` derives the chain without them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from posterior.snapshot import (
    Blobs,
    Chain,
    Circumstance,
    ErasableBlobs,
    Erasure,
    Fence,
    Ledger,
    LedgerCorrupt,
    Snapshot,
    forgotten,
    stand_in,
)
from stream.erasure import LeftOut, Mentions, mentions, without
from stream.record import Position
from trainers.line import in_force, kept, on_top, state_behind

EVENTS: Final = "erased"  # in a row's report: the events, by the sha256 of their ids
LEARNED: Final = "learned_by"  # in a row's report: by event, the snapshots that learned from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a chain holds of some events.

    `out` are those events, `fresh` those it has not forgotten yet; `states` the stored states that speak of
    one; `places` where their records lie, as far as states say; `learned` the snapshots that ever learned
    from each, oldest first, and `standing` the shas of all that are in force.
    """

    chain: str
    out: LeftOut
    fresh: frozenset[str]
    states: tuple[str, ...]
    places: tuple[Position, ...]
    learned: Mapping[str, tuple[Snapshot, ...]]
    standing: frozenset[str]

    @property
    def windows(self) -> list[Snapshot]:
        """Return every snapshot in force that learned from any of them, oldest first."""
        rows = {row.sha: row for rows in self.learned.values() for row in rows if row.sha in self.standing}
        return sorted(rows.values(), key=lambda row: row.index)


def trace(ledger: Ledger, blobs: Blobs, chain: Chain, out: LeftOut) -> Trace:
    """Look for events in every state that is stored of a chain; what was erased is known from its row."""
    line, said = lineage(ledger, chain), dict[str, Mentions]()
    erasures = {name: ledger.erasures(name) for name in {chain.name, *(row.chain for row in line)}}
    learned: dict[str, list[Snapshot]] = {}
    for event, row in _remembered(line, out):
        learned.setdefault(event, []).append(row)
    before = Mentions()
    for row in line:
        state = _standing(erasures[row.chain], row.stream_state)
        if state not in said:
            said[state] = mentions(blobs.get(state), out)
        now = said[state]
        for event in sorted(now.learned - before.learned) if row.kind == "learned" else ():
            learned.setdefault(event, []).append(row)
        before = now
    own = [_standing(erasures[chain.name], row.stream_state) for row in line if row.chain == chain.name]
    return Trace(
        chain=chain.name,
        out=out,
        fresh=out.ids - forgotten(erasures[chain.name]),
        states=tuple(dict.fromkeys(sha for sha in own if said.get(sha))),
        places=tuple(sorted({place for found in said.values() for place in found.places})),
        learned={e: tuple({row.sha: row for row in rows}.values()) for e, rows in sorted(learned.items())},
        standing=frozenset(row.sha for row in in_force(line, line[-1])) if line else frozenset(),
    )


def lineage(ledger: Ledger, chain: Chain) -> list[Snapshot]:
    """Return every row of a chain, whatever became of it, behind those of the chain it branched from."""
    found = ledger.snapshot(chain.origin) if chain.origin else None
    above: list[Snapshot] = []
    if found is not None:
        parent = ledger.chain(found[0].chain)
        above = [] if parent is None else lineage(ledger, parent)
        above = [row for row in above if row.chain != found[0].chain or row.seq <= found[0].seq]
    return [*above, *ledger.history(chain.name)]


def _standing(erasures: Sequence[Erasure], state: str) -> str:
    found = stand_in(erasures, state)
    return state if found is None else str(found.instead)


def _remembered(line: Sequence[Snapshot], out: LeftOut) -> Iterator[tuple[str, Snapshot]]:
    """Yield what earlier erasures wrote down of these events."""
    rows = {row.sha: row for row in line}
    for row in line:
        for event, shas in row.report.get(LEARNED, {}).items():
            yield from ((event, rows[sha]) for sha in shas if event in out.ids and sha in rows)


def erased_row(head: Snapshot, state: str, content: bytes, report: Mapping[str, Any]) -> Snapshot:
    """Return the row that forgets, on top of `head`: its state is `content`, stored as `state`."""
    return on_top(
        head,
        "erased",
        stream_state=state,
        counts=dict(json.loads(content)["counts"]),
        report={**report, **kept(head, head.posterior)},
    )


@final
@dataclass(frozen=True, kw_only=True)
class Eraser:
    """Forgets in somebody's name, under the fences of all chains of the ledger.

    Steps for `crash`: before-erasure, after-states, after-erasure, before-removal, after-removal.
    """

    ledger: Ledger
    blobs: ErasableBlobs
    circumstance: Callable[[Mapping[str, float]], Circumstance]
    actor: str
    at_ms: int
    reason: str | None = None
    crash: Callable[[str], None] = field(default=lambda _step: None)

    def forget(self, fence: Fence, found: Trace) -> Snapshot | None:
        """Commit the row that forgets what was found; None if the chain had forgotten it before."""
        head = self.ledger.head(fence.chain)
        if head is None or not (found.fresh or found.states):
            return None
        self.crash("before-erasure")
        out, erasures = found.out, self.ledger.erasures(fence.chain)
        instead = {sha: self.blobs.put(without(self.blobs.get(sha), out)) for sha in found.states}
        content = without(state_behind(self.blobs, erasures, head), out)
        report = {
            EVENTS: sorted(out.ids),
            LEARNED: {e: [row.sha for row in rows] for e, rows in found.learned.items()},
            "by": self.actor,
            "at_ms": self.at_ms,
            "reason": self.reason,
        }
        row = erased_row(head, self.blobs.put(content), content, report)
        self.crash("after-states")
        unfinished = self.ledger.open_plan(fence.chain)
        if unfinished is not None:
            self.ledger.supersede(fence, unfinished.sha, "an event was erased")
        done = _done_away(row, found.fresh, instead)
        self.ledger.commit(fence, row, self.circumstance({}), erased=done)
        self.crash("after-erasure")
        return row

    def remove(self, out: LeftOut, concerned: Collection[str]) -> list[str]:
        """Remove every stored state that speaks of these events, and what dead writers left; say which.

        Kept are states of chains that are not concerned, whose events only bear the same ids. A blob that no
        row names and that does not verify might hold anything, so it goes too.
        """
        keep, tensors = self._needed(concerned)
        gone: list[str] = []
        for sha in self.blobs.names():
            if sha not in keep and sha not in tensors and _speaks(self.blobs, sha, out):
                self.crash("before-removal")
                self.blobs.remove(sha)
                gone.append(sha)
                self.crash("after-removal")
        self.blobs.sweep(float("inf"))
        return gone

    def _needed(self, concerned: Collection[str]) -> tuple[set[str], set[str]]:
        """Return the shas of states that must stay whatever they say, and of tensors, which say nothing."""
        keep, tensors = set[str](), set[str]()
        for chain in self.ledger.chains():
            rows, erasures = self.ledger.history(chain.name), self.ledger.erasures(chain.name)
            tensors |= {row.posterior for row in rows}
            if chain.name not in concerned:
                keep |= {_standing(erasures, row.stream_state) for row in rows}
        return keep, tensors


def _done_away(row: Snapshot, events: Collection[str], instead: Mapping[str, str]) -> list[Erasure]:
    pairs = [*((event, None) for event in sorted(events)), *instead.items()]
    return [
        Erasure(chain=row.chain, what=what, instead=other, row=row.sha, seq=row.seq) for what, other in pairs
    ]


def _speaks(blobs: ErasableBlobs, sha: str, out: LeftOut) -> bool:
    """Tell whether a blob is a state of the stream that speaks of these events, or cannot be read."""
    try:
        data = blobs.get(sha)
    except LedgerCorrupt:
        return True
    try:
        return bool(mentions(data, out))
    except (ValueError, KeyError, TypeError):  # tensors of a row that was set aside, as a rule
        return False
