"""What BH-PEFT's chains show, as relations that hold or do not, and as a figure.

A chain's result is {"rounds": [{accuracy, nll, ece}] by the mean weights, "last": the same after the last
round by the mixture over draws, "kept": {"total" | "epistemic": [accuracy by share rejected]}}.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.papers.chart import Line, Panel, panels

PARTS: Final = ("lora", "adapter", "prefix")
WAYS: Final = ("static", "replay", "joint")

Shown = Mapping[str, Sequence[Mapping[str, Any]]]  # chain -> one result a seed


def by_round(shown: Shown, name: str) -> list[float]:
    """Return a chain's accuracy after each round, averaged over seeds."""
    runs = [[r["accuracy"] for r in run["rounds"]] for run in shown[name]]
    return [statistics.fmean(accuracies) for accuracies in zip(*runs, strict=True)]


def claims(shown: Shown, sizes: Sequence[int], rejected: Sequence[float]) -> list[dict[str, Any]]:
    """Return the paper's claims as relations, with the rows that decide them."""
    return [_hybrid(shown), _dynamic(shown, sizes), _replay(shown), _rejection(shown, rejected)]


def _hybrid(shown: Shown) -> dict[str, Any]:
    rows = []
    for name in ("hybrid", *PARTS):
        means = [statistics.fmean(r["accuracy"] for r in run["rounds"]) for run in shown[name]]
        last = [run["last"] for run in shown[name]]
        rows.append(
            {
                "parts": name,
                "accuracy": _mean(last, "accuracy"),
                "by_seed": [round(r["accuracy"], 4) for r in last],
                "accuracy_over_rounds": round(statistics.fmean(means), 4),
                "nll": _mean(last, "nll"),
                "ece": _mean(last, "ece"),
            }
        )
    ours, *others = (_mean([run["last"] for run in shown[n]], "accuracy") for n in ("hybrid", *PARTS))
    return {
        "claim": "A hybrid is more accurate than each of its parts alone.",
        "rows": rows,
        "relation": "accuracy after the last round, mean over seeds: hybrid > adapter, lora, prefix",
        "holds": ours > max(others),
    }


def _dynamic(shown: Shown, sizes: Sequence[int]) -> dict[str, Any]:
    names = ("hybrid", *WAYS)
    curves = {name: by_round(shown, name) for name in names}
    rows = [
        {"round": k + 1, "new": sizes[k]}
        | {"dynamic" if n == "hybrid" else n: round(curves[n][k], 4) for n in names}
        for k in range(len(sizes))
    ]
    above = [a > b for a, b in zip(curves["hybrid"], curves["static"], strict=True)]
    return {
        "claim": "With the last posterior as the next prior, adaptation beats a static fit from round 3 on.",
        "rows": rows,
        "relation": "dynamic > static in accuracy, mean over seeds, in every round from the third on",
        "holds": all(above[2:]),
    }


def _replay(shown: Shown) -> dict[str, Any]:
    curves = {n: statistics.fmean(by_round(shown, n)[2:]) for n in ("hybrid", "static", "replay", "joint")}
    rows = [
        {
            "chain": "dynamic" if name == "hybrid" else name,
            "accuracy_from_round_3": round(curves[name], 4),
            "nll": _mean([run["last"] for run in shown[name]], "nll"),
            "ece": _mean([run["last"] for run in shown[name]], "ece"),
        }
        for name in curves
    ]
    return {
        "claim": "The last posterior does what replay does, without keeping texts.",
        "rows": rows,
        "relation": "accuracy from round 3 on, mean over rounds and seeds: dynamic >= replay of a fifth",
        "holds": curves["hybrid"] >= curves["replay"],
    }


def _rejection(shown: Shown, rejected: Sequence[float]) -> dict[str, Any]:
    means = {
        doubt: [
            statistics.fmean(v) for v in zip(*(run["kept"][doubt] for run in shown["hybrid"]), strict=True)
        ]
        for doubt in ("total", "epistemic")
    }
    rows = [
        {"rejected": share} | {doubt: round(values[k], 4) for doubt, values in means.items()}
        for k, share in enumerate(rejected)
    ]
    total = means["total"]
    return {
        "claim": "Rejecting what is doubted most raises the accuracy of the rest.",
        "rows": rows,
        "relation": "accuracy of the kept, mean over seeds, rises with each tenth rejected by total doubt",
        "holds": all(a < b for a, b in itertools.pairwise(total)),
    }


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return round(statistics.fmean(row[name] for row in rows), 4)


def figure(shown: Shown, sizes: Sequence[int], rejected: Sequence[float]) -> str:
    """Draw accuracy by round, of the ways and of the parts, and accuracy by share rejected."""
    labels = [str(size) for size in sizes]
    ways = [Line("dynamic", by_round(shown, "hybrid"))] + [Line(n, by_round(shown, n)) for n in WAYS]
    parts = [Line(n, by_round(shown, n)) for n in ("hybrid", *PARTS)]
    kept_by = [
        Line(
            doubt,
            [statistics.fmean(v) for v in zip(*(run["kept"][doubt] for run in shown["hybrid"]), strict=True)],
        )
        for doubt in ("total", "epistemic")
    ]
    return panels(
        Panel("accuracy by round, new texts", labels, ways),
        Panel("accuracy by round, parts", labels, parts),
        Panel("accuracy by share rejected", [f"{share:.0%}" for share in rejected], kept_by),
    )


def pretty(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the claims with their rows for a terminal."""
    lines = []
    for claim in found:
        lines += [f"{'holds' if claim['holds'] else 'FAILS'}  {claim['relation']}"]
        lines += ["    " + "  ".join(f"{k} {v}" for k, v in row.items()) for row in claim["rows"]]
    return "\n".join(lines)
