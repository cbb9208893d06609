"""Why BLoB's claim does not hold here: class rows by themselves, and what the step size does to LoRA.

    .venv/bin/python -m benchmarks.papers.blob_rows [--frozen] [--seeds 1]

The texts of `benchmarks.papers.blob`, seeds and all.

Rows alone: logistic regression on the frozen encoder's features, rows Gaussian around 0, no adapter, nothing
variational. The mode is searched by L-BFGS to the end, and around it stands the full
covariance of all rows, the inverse of

    H = sum_n (diag p_n - p_n p_n') (x) x_n x_n' + I / sd^2

of which 64 draws answer. What is wrong here is wrong with the prior, for there is nothing else.

LoRA by step size: the ECE that a third is asked of, for each step size, with the one that was chosen by
validation texts. `--frozen` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.papers.blob import METHODS, RATES, SETS, SPEC, Bench, Sizes, texts
from benchmarks.papers.texts import ROOT
from posterior.calibration import ece
from posterior.predict import mixture
from priorflow.run import machine
from trainers.activations import Activations

RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "blob_rows.json"
DEVIATIONS: Final = (0.03, 0.1, 0.3)  # of a row's weights; blob's is .1
DRAWS: Final = 64
LORA, BLOB = METHODS[0], METHODS[2]


def mode(x: Tensor, y: Tensor, classes: int, sd: float) -> Tensor:
    """Return the rows (classes, d) of greatest posterior density, x (n, d) float64."""
    rows = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    search: Any = torch.optim.LBFGS([rows], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        nats = torch.nn.functional.cross_entropy(x @ rows.T, y, reduction="sum")
        nats = nats + 0.5 * (rows / sd).square().sum()
        torch.autograd.backward(nats)
        return nats

    search.step(loss)
    return rows.detach()


def precision(x: Tensor, rows: Tensor, sd: float) -> Tensor:
    """Return H of the module, (classes d, classes d), rows one after the other."""
    p = torch.softmax(x @ rows.T, dim=1)
    middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    size = rows.numel()
    evidence = torch.einsum("nkl,ni,nj->kilj", middle, x, x).reshape(size, size)
    return evidence + torch.eye(size, dtype=torch.float64) / sd**2


def drawn(rows: Tensor, held: Tensor, count: int, seed: int) -> Tensor:
    """Return draws (count, classes, d) of N(rows, held^-1)."""
    root = torch.linalg.cholesky(held)
    noise = torch.randn(
        rows.numel(), count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    moved: Tensor = torch.linalg.solve_triangular(root.T, noise, upper=True)
    return rows + moved.T.reshape(count, *rows.shape)


def judged(log_p: Tensor, truth: Tensor) -> dict[str, float]:
    """Return accuracy, ECE and NLL."""
    sure, guess = log_p.exp().max(dim=1)
    return {
        "accuracy": float((guess == truth).double().mean()),
        "ece": ece(sure, guess == truth),
        "nll": float(-log_p.gather(1, truth.unsqueeze(1)).mean()),
    }


def rows_alone(bench: Bench, name: str) -> list[dict[str, Any]]:
    """Return what rows say of a set for each deviation: by the mode and by draws, means over seeds."""
    activations = Activations(bench.model, limit_bytes=1 << 30)
    data, sizes = texts(name, bench.sizes), bench.sizes
    asked, truth = _features(activations, data.judge)
    learned = {seed: _features(activations, data.drawn(seed, sizes.learn)) for seed in sizes.seeds}
    found = []
    for sd in DEVIATIONS:
        by_mode, by_draws = [], []
        for seed, (x, y) in learned.items():
            rows = mode(x, y, data.classes, sd)
            draws = drawn(rows, precision(x, rows, sd), DRAWS, seed)
            by_mode.append(judged(torch.log_softmax(asked @ rows.T, dim=1), truth))
            said = torch.log_softmax(torch.einsum("nd,skd->snk", asked, draws), dim=-1)
            by_draws.append(judged(mixture(said), truth))
        found += [
            {"set": name, "rows": how, "sd": sd, **_means(seeds)}
            for how, seeds in (("mode", by_mode), ("full covariance", by_draws))
        ]
    return found


def _features(activations: Activations, labelled: Sequence[tuple[str, int]]) -> tuple[Tensor, Tensor]:
    """Return the frozen encoder's features with a 1 behind them, (n, d + 1), and the classes."""
    x = activations.sight([text for text, _ in labelled]).views[:, -1].double()
    return torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1), torch.tensor(
        [y for _, y in labelled]
    )


def by_step_size(bench: Bench, name: str) -> list[dict[str, Any]]:
    """Return what LoRA and BLoB say of a set at each step size, means over seeds."""
    data, sizes = texts(name, bench.sizes), bench.sizes
    truth, found = torch.tensor([y for _, y in data.judge]), []
    for method in (LORA, BLOB):
        for rate in RATES:
            fits = [bench.said(name, method, rate=rate, seed=seed) for seed in sizes.seeds]
            said = [mixture(fit["draws"])[sizes.choose :].double() for fit in fits]
            shown = _means([judged(one, truth) for one in said])
            found.append({"set": name, "method": method.name, "rate": rate, **shown})
    return found


def _means(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(statistics.fmean(one[name] for one in seeds), 4) for name in seeds[0]}


def main() -> None:
    """Measure; write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--frozen", action="store_true", help="rows alone; keep what was written of step sizes"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="of LoRA and BLoB by step size", default=[1])
    asked = parser.parse_args()
    former = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    alone, few = Bench(Sizes()), Bench(replace(Sizes(), seeds=tuple(asked.seeds)))
    told = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": f"{SPEC.encoder}; {Sizes().learn} texts learned, {Sizes().judge} judge; rows alone: seeds "
        f"{list(Sizes().seeds)}, {DRAWS} draws; by step size: see its seeds",
        "rows_alone": [row for name in SETS for row in rows_alone(alone, name)],
        "seeds_by_step_size": former.get("seeds_by_step_size") if asked.frozen else asked.seeds,
        "by_step_size": former.get("by_step_size")
        if asked.frozen
        else [row for name in SETS for row in by_step_size(few, name)],
    }
    RESULT.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
