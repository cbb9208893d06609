"""What BoRA's fits show, as relations that hold or do not, and as a figure.

A measure stands under (part, method, place, domain, seed): part "sizes" by labels of each domain, "curve" by
tau, "few" by the number of the domain that has the fewest labels.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.papers.chart import Line, Panel, panels

Cells = Mapping[tuple[str, str, float, str, int], Mapping[str, float]]
METHODS: Final = ("separate", "joint", "hierarchical")
MEASURES: Final = ("accuracy", "nll", "ece")
MANY: Final = 200  # labels of the other domains where one has few


def claims(cells: Cells, perplexity: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the claims as relations, with the rows that decide them; perplexity's once it was measured."""
    told = [] if perplexity is None else [_perplexity(perplexity)]
    return [*told, _sizes(cells, "accuracy"), _sizes(cells, "nll"), _curve(cells), _few(cells)]


def mean(
    cells: Cells, part: str, method: str, measure: str, *, at: float | None = None, domain: str | None = None
) -> float:
    """Return the mean over seeds and whatever is not named."""
    return statistics.fmean(
        measures[measure]
        for (p, m, place, d, _), measures in cells.items()
        if (p, m) == (part, method) and at in {None, place} and domain in {None, d}
    )


def places(cells: Cells, part: str) -> list[float]:
    """Return where a part has measures, in order."""
    return sorted({place for p, _, place, _, _ in cells if p == part})


def _domains(cells: Cells) -> list[str]:
    return sorted({d for _, _, _, d, _ in cells})


def _rounded(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in pairs}


def _sizes(cells: Cells, measure: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for size in places(cells, "sizes"):
        for domain in [*_domains(cells), "mean"]:
            of = None if domain == "mean" else domain
            shown = _rounded((m, mean(cells, "sizes", m, measure, at=size, domain=of)) for m in METHODS)
            rows.append({"labels": int(size), "domain": domain, **shown})
    best = {m: mean(cells, "sizes", m, measure) for m in METHODS}
    more = measure == "accuracy"
    others = [best["separate"], best["joint"]]
    return {
        "claim": f"Hierarchical domains are better than separate ones and than one for all: {measure}.",
        "rows": [*rows, {"labels": "all", "domain": "mean", **_rounded(best.items())}],
        "relation": f"{measure}, mean over labels, domains and seeds: hierarchical "
        + ("above separate and joint" if more else "below separate and joint"),
        "holds": best["hierarchical"] > max(others) if more else best["hierarchical"] < min(others),
    }


def curve(cells: Cells, method: str) -> list[float]:
    """Return the nll over tau."""
    return [mean(cells, "curve", method, "nll", at=tau) for tau in places(cells, "curve")]


def _curve(cells: Cells) -> dict[str, Any]:
    taus = places(cells, "curve")
    names = ("posterior", "map")
    rows = [
        {"tau": tau}
        | _rounded(
            (f"{name} {m}", mean(cells, "curve", name, m, at=tau)) for name in names for m in MEASURES[:2]
        )
        for tau in taus
    ]
    lowest = {name: min(range(len(taus)), key=curve(cells, name).__getitem__) for name in names}
    return {
        "claim": "Between one adapter each (tau 0) and one for all (tau infinite) lies the best of both.",
        "rows": rows,
        "relation": "nll over tau, mean over domains and seeds, has its minimum inside: posterior and points",
        "holds": all(0 < k < len(taus) - 1 for k in lowest.values()),
    }


def _few(cells: Cells) -> dict[str, Any]:
    """Compare what a domain gains over learning alone when it has few labels and when it has many."""
    domains, rows = _domains(cells), list[dict[str, Any]]()
    sizes = [n for n in places(cells, "sizes") if n <= MANY]
    for number, domain in enumerate(domains):
        alone = {
            n: mean(cells, "sizes", "separate", "nll", at=n, domain=domain) for n in (sizes[0], sizes[-1])
        }
        few = mean(cells, "few", "hierarchical", "nll", at=number, domain=domain)
        others = [k for k in range(len(domains)) if k != number]
        many = [mean(cells, "few", "hierarchical", "nll", at=k, domain=domain) for k in others]
        gains = {"few": alone[sizes[0]] - few, "many": alone[sizes[-1]] - statistics.fmean(many)}
        rows.append({"domain": domain, **_rounded((f"gain of {k}", v) for k, v in gains.items())})
    return {
        "claim": "Tasks of few labels gain most from the others.",
        "rows": rows,
        "relation": f"nll below learning alone, by domain: with {sizes[0]:g} labels beside three domains of "
        f"{sizes[-1]:g} more than with {sizes[-1]:g} labels",
        "holds": all(row["gain of few"] > row["gain of many"] for row in rows),
    }


def _perplexity(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claim of `benchmarks.papers.bora_perplexity` in the form of the others."""
    return {
        "claim": told["claim"],
        "rows": [{"method": m, "perplexity": round(r["perplexity"], 3)} for m, r in told["rows"].items()],
        "relation": "; ".join(told["relation"]),
        "holds": told["holds"],
    }


def figure(cells: Cells) -> str:
    """Draw accuracy and nll over labels, and nll over tau."""
    labels, taus = places(cells, "sizes"), places(cells, "curve")
    by_size = [
        Panel(
            f"{measure}, by labels of each domain",
            [f"{size:g}" for size in labels],
            [Line(m, [mean(cells, "sizes", m, measure, at=size) for size in labels]) for m in METHODS],
        )
        for measure in MEASURES[:2]
    ]
    over_tau = [Line("posterior", curve(cells, "posterior")), Line("points (map)", curve(cells, "map"))]
    return panels(*by_size, Panel("nll, by tau", [f"{tau:g}" for tau in taus], over_tau))


def pretty(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the claims with their rows for a terminal."""
    lines = []
    for claim in found:
        lines += [f"{'holds' if claim['holds'] else 'FAILS'}  {claim['relation']}"]
        lines += ["    " + "  ".join(f"{k} {v}" for k, v in row.items()) for row in claim["rows"]]
    return "\n".join(lines)
