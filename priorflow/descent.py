"""Which snapshot came of which: a tree that stays small however long a chain has run.

    root ── 1 ── 2 ── 3 ── 4 = left behind
                 └─ branch ── 5 ── 6 = head

A snapshot stands under the one whose belief it began with: the row before it, or the row that a branch names.
So a rollback that changes only who answers makes no branch, and one from which learning goes on does.

Shown are the ways from the root to the head, to those that somebody wants to see, and to the newest ends that
were left behind. Of each way its first row is kept, its last ones, and where it forks; the rest is counted.
With e ends there are at most e ways and e - 1 forks, so the lines are bounded by the ends, not by the chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from typing import Final, final

from posterior.snapshot import Snapshot, Span
from trainers.branching import OF

RECENT: Final = 8  # rows shown before the head
LEFT: Final = 6  # ends shown that were left behind
_FEW: Final = 2  # rows of a way that are never worth folding


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A snapshot; `ways` left from it, beside the one it stands in, and `unseen` more that are not shown."""

    sha: str
    row: Snapshot
    ways: tuple[Way, ...] = ()
    unseen: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Rows without a fork that is shown, counted: windows, other rows, and `unseen` ways that left them.

    `first` and `last` number the windows; `before` and `after` are the positions at both ends.
    """

    windows: int
    others: int
    unseen: int
    first: int
    last: int
    quarantined: int
    drifted: int
    before: tuple[Span, ...]
    after: tuple[Span, ...]


Way = tuple[Node | Fold, ...]


@final
@dataclass(frozen=True, slots=True)
class _Plot:
    """What is drawn: rows by sha, what each stands under, what stands under each, and what is kept."""

    rows: Mapping[str, Snapshot]
    under: Mapping[str, str | None]
    kids: Mapping[str, Sequence[str]]
    unseen: Mapping[str, int]
    trunk: frozenset[str]
    wanted: Collection[str]


def shas(rows: Sequence[Snapshot]) -> list[str]:
    """Return the rows' shas; that of a row with another on top is what that one calls its parent."""
    above = [*(two.parent if two.chain == one.chain else None for one, two in pairwise(rows)), None]
    return [row.sha if sha is None else sha for row, sha in zip(rows, above, strict=True)]


def begun_from(row: Snapshot) -> str | None:
    """Return the sha of the row whose belief this one began with."""
    named: str | None = row.report.get(OF)
    return named or row.parent


def descent(rows: Sequence[Snapshot], *, head: str, wanted: Collection[str] = ()) -> tuple[Way, ...]:
    """Return the tree of these rows, parents before children, as ways from its roots; as a rule one.

    `head` and `wanted` are shas that are shown wherever they stand, if they are there at all.
    """
    known = dict(zip(shas(rows), rows, strict=True))
    kept = {head, *wanted} & known.keys()
    under = _under(known, kept)
    trunk = frozenset(_up(head, under))
    shown = _shown(under, trunk, kept)
    plot = _Plot(
        rows=known,
        under=under,
        kids=_kids(under, shown),
        unseen=Counter(up for sha, up in under.items() if sha not in shown and up in shown),
        trunk=trunk,
        wanted=kept,
    )
    return tuple(_way(plot, sha) for sha in under if sha in shown and under[sha] is None)


def nodes(ways: Iterable[Way]) -> Iterator[Node]:
    """Yield every snapshot that is shown."""
    for step in chain.from_iterable(ways):
        if isinstance(step, Node):
            yield step
            yield from nodes(step.ways)


def _under(known: Mapping[str, Snapshot], kept: Collection[str]) -> dict[str, str | None]:
    """Return what each row stands under; rows that only moved positions on are passed through."""
    through: dict[str, str | None] = {}
    under: dict[str, str | None] = {}
    for sha, row in known.items():
        named = begun_from(row)
        parent = named if named in known else row.parent if row.parent in known else None
        up = through.get(parent, parent) if parent is not None else None
        if row.kind == "progress" and sha not in kept:
            through[sha] = up
        else:
            under[sha] = up
    return under


def _shown(under: Mapping[str, str | None], trunk: Collection[str], kept: Collection[str]) -> set[str]:
    """Return the rows on the way to an end that is shown."""
    inner = set(under.values())
    ends = [sha for sha in under if sha not in inner and sha not in trunk]
    return {*trunk, *(sha for end in (*kept, *ends[-LEFT:]) for sha in _up(end, under))}


def _up(sha: str, under: Mapping[str, str | None]) -> Iterator[str]:
    at: str | None = sha
    while at is not None:
        yield at
        at = under[at]


def _kids(under: Mapping[str, str | None], shown: Collection[str]) -> dict[str, list[str]]:
    kids: dict[str, list[str]] = {}
    for sha, up in under.items():
        if sha in shown and up is not None:
            kids.setdefault(up, []).append(sha)
    return kids


def _way(plot: _Plot, start: str) -> Way:
    """Return a way from its first row to its end, with what left it."""
    line = [start]
    while (onward := _onward(plot, line[-1])) is not None:
        line.append(onward)
    tail = RECENT if line[-1] in plot.trunk else 1
    whole = {line[0], *line[-tail:], *(sha for sha in line if sha in plot.wanted or _forks(plot, sha))}
    steps: list[Node | Fold] = []
    for kept, run in groupby(line, key=lambda sha: sha in whole):
        there = list(run)
        folds = not kept and len(there) > _FEW
        steps += [_fold(plot, there)] if folds else [_node(plot, sha) for sha in there]
    return tuple(steps)


def _onward(plot: _Plot, sha: str) -> str | None:
    """Return what a way goes on with: towards the head, else in the same chain, else the newest."""
    kids, own = plot.kids.get(sha, ()), plot.rows[sha].chain
    return max(reversed(kids), key=lambda kid: (kid in plot.trunk, plot.rows[kid].chain == own), default=None)


def _forks(plot: _Plot, sha: str) -> bool:
    return len(plot.kids.get(sha, ())) > 1


def _node(plot: _Plot, sha: str) -> Node:
    onward = _onward(plot, sha)
    return Node(
        sha=sha,
        row=plot.rows[sha],
        ways=tuple(_way(plot, kid) for kid in plot.kids.get(sha, ()) if kid != onward),
        unseen=plot.unseen.get(sha, 0),
    )


def _fold(plot: _Plot, run: Sequence[str]) -> Fold:
    rows = [plot.rows[sha] for sha in run]
    windows = [row for row in rows if row.kind in {"learned", "quarantined"}]
    first = rows[0]
    return Fold(
        windows=len(windows),
        others=len(rows) - len(windows),
        unseen=sum(plot.unseen.get(sha, 0) for sha in run),
        first=windows[0].index if windows else first.index,
        last=windows[-1].index if windows else first.index,
        quarantined=sum(row.kind == "quarantined" for row in windows),
        drifted=sum(bool(row.report.get("drift")) for row in windows),
        # A branch may take up older positions: what was read before it is no part of this way.
        before=first.spans if first.kind == "branch" else first.spans_before,
        after=rows[-1].spans,
    )
