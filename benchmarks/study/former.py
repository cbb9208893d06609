"""What an earlier summary tells of runs that are not kept here: a study of hours is made on several days.

Rows name the code that made them, so a reader sees which are of one code. Comparisons need both runs on one
shelf; one that was made is told until ours is run on that stream again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchmarks.study.curves import Curves
from benchmarks.study.paired import Difference
from benchmarks.study.targets import Compared

Summary = Mapping[str, Any]
Place = tuple[str, str, int]  # stream, method, seed


def place(row: Mapping[str, Any]) -> Place:
    """Return which run a row tells of."""
    return row["stream"], row["method"], row["seed"]


def all_rows(
    rows: Sequence[Mapping[str, Any]], former: Summary, streams: Sequence[str], methods: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Return today's rows and the earlier ones of other runs, stream by stream; unknown names are gone."""
    held = {place(row): row for row in (*former.get("rows", ()), *rows)}
    known = [row for row in held.values() if row["stream"] in streams and row["method"] in methods]
    return sorted(known, key=lambda r: (streams.index(r["stream"]), methods.index(r["method"]), r["seed"]))


def all_comparisons(found: Sequence[Compared], former: Summary, done: Collection[str]) -> list[Compared]:
    """Return today's comparisons, and the earlier ones of streams on which ours was not run again.

    `done` are the streams on which it was: what was compared there before was another run of ours.
    """
    earlier = map(_compared, former.get("comparisons", ()))
    return [*(one for one in earlier if one.stream not in done), *found]


def all_curves(
    found: Mapping[str, Curves], former: Summary, streams: Sequence[str], methods: Sequence[str]
) -> dict[str, Curves]:
    """Return today's curves and the earlier ones of other runs, by stream, measure and method."""
    earlier: Mapping[str, Curves] = former.get("curves", {})
    out: dict[str, Curves] = {}
    for stream in streams:
        sides = earlier.get(stream, {}), found.get(stream, {})
        kinds = dict.fromkeys(kind for side in sides for kind in side)
        merged = {kind: {**sides[0].get(kind, {}), **sides[1].get(kind, {})} for kind in kinds}
        known = {kind: {m: held[m] for m in methods if m in held} for kind, held in merged.items()}
        out |= {stream: known} if any(known.values()) else {}
    return out


def _compared(said: Mapping[str, Any]) -> Compared:
    named = {name: said[name] for name in ("stream", "against", "measure")}
    found = {k: v for k, v in said.items() if k not in (*named, "seeds")}
    return Compared(**named, seeds=tuple(said["seeds"]), found=Difference(**found))
