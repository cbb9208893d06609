"""What the page draws of runs that are there: accuracy so far, costs by window, risk over coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.papers.chart import Line, Panel, panels
from benchmarks.study.curves import DRAWN, POINTS, drawn_beside
from benchmarks.study.methods import JOINT, LORA, PRIORFLOW
from benchmarks.study.seeds import averaged

Said = Mapping[str, Any]  # a summary

COSTLY: Final = "mails"  # the stream whose costs are drawn: classes come as it goes, and labels late


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing: its file, what it shows, its charts."""

    file: str
    shows: str
    charts: Callable[[Said], list[Panel]]


def figures() -> tuple[Figure, ...]:
    """Return every figure of the page."""
    return (
        Figure("accuracy.svg", "Accuracy on held-out texts of all windows so far", _accuracies),
        Figure("nll.svg", "What texts cost before they were learned, by window", _costs),
        Figure("risk.svg", "Error among the surest texts, by the share of texts that is answered", _risks),
    )


def drawn(said: Said) -> dict[str, str]:
    """Return the drawings by file; those without a chart are left out."""
    charts = {figure.file: figure.charts(said) for figure in figures()}
    return {file: panels(*found) for file, found in charts.items() if found}


def _accuracies(said: Said) -> list[Panel]:
    """Draw the main streams that have been run; joint training is level."""
    charts = []
    for stream in said["main"]:
        held = _curves(said, stream, "accuracy")
        if PRIORFLOW in held and LORA in held:
            count = len(held[PRIORFLOW])
            lines = [
                Line(method, list(held[method]) * (count if method == JOINT else 1))
                for method in DRAWN
                if method in held
            ]
            labels = [str(w + 1) for w in range(count)]
            charts.append(Panel(f"{stream}: accuracy so far, by window", labels, lines))
    return charts


def _costs(said: Said) -> list[Panel]:
    """Draw all texts and those of known classes, by the same methods and windows."""
    known = _curves(said, COSTLY, "prequential_nll_seen")
    methods = [m for m in _beside(said, COSTLY, "prequential_nll") if m in known]
    kinds = {"NLL": _curves(said, COSTLY, "prequential_nll"), "NLL of seen classes": known}
    if PRIORFLOW not in methods or LORA not in methods:
        return []
    windows = [w for w in known[PRIORFLOW] if all(w in held[m] for held in kinds.values() for m in methods)]
    return [
        Panel(
            f"{COSTLY}: {name}, nats, by window",
            windows,
            [Line(method, [held[method][w] for w in windows]) for method in methods],
        )
        for name, held in kinds.items()
    ]


def _risks(said: Said) -> list[Panel]:
    """Draw the main streams that show a class again; elsewhere every guess is wrong."""
    charts = []
    labels = [f"{100 * (k + 1) // POINTS} %" for k in range(POINTS)]
    for stream in said["main"]:
        held = _curves(said, stream, "risk_coverage")
        methods = [m for m in _beside(said, stream, "risk_coverage_area") if m in held]
        shows_again = _curves(said, stream, "prequential_nll_seen").get(PRIORFLOW)
        if PRIORFLOW in methods and LORA in methods and shows_again:
            lines = [Line(method, held[method]) for method in methods]
            charts.append(Panel(f"{stream}: error by share answered", labels, lines))
    return charts


def _curves(said: Said, stream: str, kind: str) -> Mapping[str, Any]:
    held: Mapping[str, Any] = said["curves"].get(stream, {}).get(kind, {})
    return held


def _beside(said: Said, stream: str, measure: str) -> Sequence[str]:
    """Return whose curves are drawn, the best of the others by a measure of which less is better."""
    methods = dict.fromkeys(row["method"] for row in said["rows"] if row["stream"] == stream)
    found = {method: averaged(said["rows"], stream, method) for method in methods}
    return drawn_beside({method: means[measure] for method, means in found.items() if measure in means})
