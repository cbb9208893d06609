"""What fits of LoRA and BLoB show: rows of calibration, the claim's relations, and a figure.

A fit has said log-probabilities of the texts that choose (first) and of those that judge: `mean`
(n, classes) by the mean weights, `draws` (draws, n, classes).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.papers.chart import Line, Panel, panels
from posterior.calibration import brier, ece
from posterior.predict import mixture

CLAIM: Final = (
    "ECE at most a third of LoRA's at equal accuracy (within a point) and lower NLL; draws better than the "
    "mean; better than dropout and than an ensemble"
)
LORA, OURS, DROPOUT, ENSEMBLE = "LoRA", "BLoB", "dropout", "ensemble"
MEASURES: Final = ("accuracy", "ece", "nll", "brier")
CURVE: Final = (0, 1, 2, 5, 10)  # draws
_TEMPERATURES: Final = torch.linspace(0.25, 8.0, 311, dtype=torch.float64)

Fit = Mapping[str, Tensor]
Speaks = Callable[[Sequence[Fit]], Tensor]  # a seed's fits from several starts -> log-probabilities


@dataclass(frozen=True, slots=True)
class Shown:
    """A set's fits by (method, step size, seed), one a start; classes of its texts, and how many choose."""

    name: str
    fits: Mapping[tuple[str, float, int], Sequence[Fit]]
    truth: Tensor
    choose: int

    @property
    def rates(self) -> list[float]:
        """The step sizes that were tried."""
        return sorted({rate for _, rate, _ in self.fits})

    @property
    def seeds(self) -> list[int]:
        """The seeds, each with texts of its own."""
        return sorted({seed for _, _, seed in self.fits})


@dataclass(frozen=True, slots=True)
class Answer:
    """A row's name, whose fits it uses, how these speak, and how they speak when a step size is chosen."""

    name: str
    method: str
    speaks: Speaks
    tuned: Speaks
    tempered: bool = False


def by_mean(fits: Sequence[Fit]) -> Tensor:
    """Let the first start's mean weights speak."""
    return fits[0]["mean"].double()


def by_draws(count: int) -> Speaks:
    """Let so many draws of the first start speak; 0 is the mean."""
    return lambda fits: mixture(fits[0]["draws"][:count]) if count else by_mean(fits)


def together(fits: Sequence[Fit]) -> Tensor:
    """Let the means of all starts speak."""
    return mixture(torch.stack([fit["mean"] for fit in fits]))


def answers(methods: Sequence[str], draws: int) -> list[Answer]:
    """Return the rows of the table."""
    many = by_draws(draws)
    rows = [
        Answer(LORA, LORA, by_mean, by_mean),
        Answer(f"{LORA}, tempered", LORA, by_mean, by_mean, tempered=True),
        Answer(ENSEMBLE, LORA, together, together),
        Answer(DROPOUT, DROPOUT, many, many),
    ]
    for name in methods:
        if name.startswith(OURS):
            rows += [Answer(f"{name}, mean", name, by_mean, many), Answer(name, name, many, many)]
    return rows


def measured(said: Tensor, truth: Tensor) -> dict[str, float]:
    """Return accuracy, calibration error in 15 bins, NLL in nats and Brier score."""
    best = said.max(dim=1)
    right = (best.indices == truth).double()
    return {
        "accuracy": float(right.mean()),
        "ece": ece(best.values.exp().clamp_max(1.0), right),
        "nll": float(torch.nn.functional.nll_loss(said, truth)),
        "brier": brier(said.exp(), truth),
    }


def tempered(said: Tensor, truth: Tensor, choose: int) -> Tensor:
    """Return log-probabilities at the temperature that the first `choose` texts like best."""
    tried = torch.log_softmax(said[None, :choose] / _TEMPERATURES[:, None, None], dim=-1)
    costs = [float(torch.nn.functional.nll_loss(one, truth[:choose])) for one in tried]
    return torch.log_softmax(said / _TEMPERATURES[costs.index(min(costs))], dim=-1)


def chosen(shown: Shown, answer: Answer, measure: str) -> float:
    """Return the step size that the choosing texts like best, over all seeds; the smaller of equals."""

    def cost(rate: float) -> float:
        found = [
            measured(
                answer.tuned(shown.fits[answer.method, rate, s])[: shown.choose], shown.truth[: shown.choose]
            )
            for s in shown.seeds
        ]
        mean = statistics.fmean(f[measure] for f in found)
        return -mean if measure == "accuracy" else mean

    return min(shown.rates, key=cost)


def row(shown: Shown, answer: Answer, rate: float, tuned_by: str) -> dict[str, Any]:
    """Return what the judging texts say of a method at a step size, over seeds."""
    found = []
    for seed in shown.seeds:
        said = answer.speaks(shown.fits[answer.method, rate, seed])
        if answer.tempered:
            said = tempered(said, shown.truth, shown.choose)
        found.append(measured(said[shown.choose :], shown.truth[shown.choose :]))
    means = {m: round(statistics.fmean(f[m] for f in found), 4) for m in MEASURES}
    by_seed = {f"{m}_by_seed": [round(f[m], 4) for f in found] for m in ("accuracy", "ece", "nll")}
    return {"set": shown.name, "method": answer.name, "tuned_by": tuned_by, "rate": rate, **means, **by_seed}


def curve(shown: Shown, draws: int) -> dict[str, float]:
    """Return BLoB's calibration error by the number of draws, at the step size that all draws like."""
    rate = chosen(shown, Answer(OURS, OURS, by_draws(draws), by_draws(draws)), "accuracy")
    counts = [n for n in CURVE if n <= draws]
    return {
        str(n): row(shown, Answer(OURS, OURS, by_draws(n), by_draws(n)), rate, "accuracy")["ece"]
        for n in counts
    }


def relations(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Return the parts of the claim for one set's rows under one way of tuning."""
    by = {r["method"]: r for r in rows}
    ours, lora = by[OURS], by[LORA]
    others = [by[DROPOUT], by[ENSEMBLE]]
    return {
        "ece at most a third of LoRA's": ours["ece"] <= lora["ece"] / 3,
        "accuracy no more than a point below LoRA's": ours["accuracy"] >= lora["accuracy"] - 0.01,
        "nll below LoRA's": ours["nll"] < lora["nll"],
        "ece of draws below the mean's": ours["ece"] < by[f"{OURS}, mean"]["ece"],
        "ece below dropout's and the ensemble's": all(ours["ece"] < o["ece"] for o in others),
        "nll below dropout's and the ensemble's": all(ours["nll"] < o["nll"] for o in others),
    }


def result(sets: Sequence[Shown], methods: Sequence[str], draws: int) -> dict[str, Any]:
    """Return claim, rows, relation and whether all of it holds; tuned by accuracy, as one would tune LoRA."""
    rows = [
        row(shown, answer, chosen(shown, answer, measure), measure)
        for shown in sets
        for measure in ("accuracy", "nll")
        for answer in answers(methods, draws)
    ]
    relation = {
        measure: {
            s.name: relations([r for r in rows if (r["set"], r["tuned_by"]) == (s.name, measure)])
            for s in sets
        }
        for measure in ("accuracy", "nll")
    }
    return {
        "claim": CLAIM,
        "rows": rows,
        "ece_by_draws": {s.name: curve(s, draws) for s in sets},
        "relation": relation["accuracy"],
        "relation_tuned_by_nll": relation["nll"],
        "holds": all(all(parts.values()) for parts in relation["accuracy"].values()),
    }


def figure(found: Mapping[str, Any]) -> str:
    """Return BLoB's calibration error over draws beside the others', a chart a set."""
    charts = []
    for name, by in found["ece_by_draws"].items():
        others = {
            r["method"]: r["ece"] for r in found["rows"] if (r["set"], r["tuned_by"]) == (name, "accuracy")
        }
        flat = [Line(m, [others[m]] * len(by)) for m in (LORA, DROPOUT, ENSEMBLE)]
        charts.append(Panel(f"{name}: ECE by draws", list(by), [Line(OURS, list(by.values())), *flat]))
    return panels(*charts)


def pretty(found: Mapping[str, Any]) -> str:
    """Return the table for a terminal."""
    lines = [f"{'':38}{'tuned by':>10}{'rate':>7}" + "".join(f"{m:>10}" for m in MEASURES)]
    for r in found["rows"]:
        cells = "".join(f"{r[m]:10.3f}" for m in MEASURES)
        lines.append(f"{r['set']:12}{r['method']:26}{r['tuned_by']:>10}{r['rate']:7g}{cells}")
    for name, parts in found["relation"].items():
        lines += [f"{name}: {part}: {'holds' if kept else 'does not hold'}" for part, kept in parts.items()]
    return "\n".join(lines)
