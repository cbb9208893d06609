"""What BoRA's perplexities show, as relations that hold or do not, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.papers.chart import Line, Panel, panels

NAMES: Final = ("separate", "joint", "hierarchical")
Costs = Mapping[str, tuple[float, int]]  # nats and tokens of each task


def overall(costs: Costs) -> float:
    """Return the perplexity over all tokens."""
    return math.exp(sum(c[0] for c in costs.values()) / sum(c[1] for c in costs.values()))


def told(runs: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], curve: Sequence[str]) -> dict[str, Any]:
    """Return claim, rows, relation and whether it holds."""
    rows = {
        run["method"]: {
            "perplexity": overall(run["costs"]),
            "by_task": {g: math.exp(nats / tokens) for g, (nats, tokens) in run["costs"].items()},
            "core_seconds": run["core_seconds"],
            **({"setting": run["setting"]} if "setting" in run else {}),
        }
        for run in runs
    }
    total = {name: row["perplexity"] for name, row in rows.items()}
    along = [total[name] for name in curve]
    lowest = along.index(min(along))
    gains = {g: math.log(rows["separate"]["by_task"][g] / rows["hierarchical"]["by_task"][g]) for g in sizes}
    few, many = (
        sum(gains[g] for g in sizes if sizes[g] == size) / sum(sizes[g] == size for g in sizes)
        for size in (min(sizes.values()), max(sizes.values()))
    )
    relations = {
        "hierarchical below separate": total["hierarchical"] < total["separate"],
        "hierarchical below joint": total["hierarchical"] < total["joint"],
        "the curve over tau has its minimum inside": 0 < lowest < len(along) - 1,
        "tasks of the fewest posts gain most over separate": few > many,
    }
    return {
        "claim": "perplexity: hierarchical below separate and joint adapters (paper: 12.82, 16.80, 13.91)",
        "rows": rows,
        "curve": list(curve),
        "posts": dict(sizes),
        "gain_nats_per_token": {"fewest posts": few, "most posts": many},
        "relation": relations,
        "holds": all(relations.values()),
        "shrunk": f"{sum(sizes.values())} posts of 64 tokens, the last two of 30 layers, one seed",
    }


def figure(result: Mapping[str, Any]) -> str:
    """Draw perplexity by task, fewest posts first, and over tau between the two ends."""
    rows, sizes = result["rows"], result["posts"]
    groups = sorted(sizes, key=lambda g: (sizes[g], g))
    by_task = [Line(n, [rows[n]["by_task"][g] for g in groups]) for n in ("untouched", *NAMES)]
    curve = [rows[name]["perplexity"] for name in result["curve"]]
    level = [Line(n, [rows[n]["perplexity"]] * len(curve)) for n in NAMES]
    return panels(
        Panel("perplexity of tasks, by their posts", [str(sizes[g]) for g in groups], by_task),
        Panel(
            "perplexity, by tau",
            [name.removeprefix("tau ") for name in result["curve"]],
            [Line("points (map)", curve), *level],
        ),
    )
