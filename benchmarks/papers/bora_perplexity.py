"""BoRA's first claim: perplexity per task, hierarchical below both separate and joint adapters.

    .venv/bin/python -m benchmarks.papers.bora_perplexity [--quick]

Eight groups of 20 Newsgroups are tasks of 12 to 100 posts, each cut at 64 tokens; SmolLM2-135M in bfloat16
predicts their next tokens with LoRA at query, value and both ends of the feed-forward block of its last two
layers, over prefixes computed once.

    untouched      the model as it came
    separate       a Gaussian belief of its own for every task (blob)
    joint          one for all of them
    hierarchical   tasks under a shared Gaussian, how far apart they lie being learned (bora)
    tau t          the paper's points (bora, fit: map), tau held fixed

All by the production update. A weight's prior variance is the same in all of them, and so is the evidence per
token; they differ in the share of that variance that tasks have in common: none, all, tau / (1 + tau). Every
fit passes three times over its posts, and more often if that is less than 24 steps: a task alone would
otherwise be given up early.

Prior deviation of B and step size are chosen from the same grid by each method for itself, on other posts of
the training half, after learning from a quarter of the posts; the points take what the hierarchy chose. The
means are asked about 30 posts of the test half of every group. About 20 core-minutes; every finished fit is
kept in .priorflow/bench-bora-perplexity and not done again until the learner's code changes. `--quick` takes
a random model of two layers: it shows that all of this runs, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.papers.bora import code
from benchmarks.papers.bora_perplexity_claims import Costs, figure, overall, told
from benchmarks.papers.texts import ROOT, newsgroups
from benchmarks.smollm2 import WEIGHTS_SHA256, smollm2
from posterior.family import Tensors
from priorflow.config import Settings
from priorflow.learning import encoder_path
from trainers.activations import Activations
from trainers.language import NextTokens
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec, Local, Order, root

SIZES: Final = {
    "comp.graphics": 100,
    "comp.os.ms-windows.misc": 50,
    "comp.sys.ibm.pc.hardware": 25,
    "comp.sys.mac.hardware": 12,
    "comp.windows.x": 100,
    "sci.crypt": 50,
    "sci.electronics": 25,
    "sci.space": 12,
}
ASKED: Final = 30  # posts of each group's test half
HELD: Final = 12  # of its training half, for the choice of a setting
TRIED: Final = 0.25  # share of the posts that a setting is tried on
GUESS: Final = 4.0  # tau that the hierarchy begins with
TAUS: Final = (0.02, 0.3, 4.0, 50.0, 600.0)  # from one adapter for each to one for all
SD_DOWN: Final = 0.02  # prior deviation of a weight of A in all, around LoRA's random directions
BATCH, PASSES, STEPS = 8, 3, 24  # at least so many passes, and so many steps
SITES: Final = r"layers\.(28|29)\.(self_attn\.(q|v)_proj|mlp\.(up|down)_proj)$"
HOME: Final = ROOT / ".priorflow" / "bench-bora-perplexity"
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "bora_perplexity.json"


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is learned and what is asked, by group."""

    learned: Mapping[str, Sequence[str]]
    asked: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Setting:
    """Prior deviation of a weight of B, and steps in prior deviations; A's is .02 everywhere."""

    sd_up: float
    lr: float


GRID: Final = (Setting(0.3, 0.05), Setting(0.3, 0.1), Setting(1.0, 0.05))


@dataclass(frozen=True, slots=True)
class Method:
    """Which tasks share a belief, each alone or all; with tau, all under a shared Gaussian."""

    name: str
    tau: float | None = None
    alone: bool = False
    points: bool = False

    def family(self, setting: Setting) -> FamilySpec:
        """Return the family whose weights have this prior deviation in all."""
        if self.tau is None:
            return FamilySpec(name="blob", options={"sd_down": SD_DOWN, "sd_up": setting.sd_up})
        shared = math.sqrt(self.tau / (1 + self.tau))
        scales = {"sd_down": SD_DOWN * shared, "sd_up": setting.sd_up * shared}
        fit = {"fit": "map"} if self.points else {}
        return FamilySpec(name="bora", options={**scales, "apart": self.tau**-0.5, **fit})


CHOOSING: Final = (
    Method("joint"),
    Method("hierarchical", tau=GUESS),
    Method("separate", alone=True),
)
CURVE: Final = tuple(Method(f"tau {tau:g}", tau=tau, points=True) for tau in TAUS)


def tasks(share: float, *, held: bool = False) -> Tasks:
    """Return the first posts of each group; of a share of them, at least two.

    What is asked are posts of the test half or, `held` back, posts of the training half never learned.
    """
    train, test = (list(dict.fromkeys(newsgroups(half))) for half in ("train", "test"))
    learned = {g: max(2, round(share * n)) for g, n in SIZES.items()}
    asked = max(2, round(min(1.0, share) * ASKED)) if not held else HELD
    return Tasks(
        {g: [text for text, own in train if own == g][:n] for g, n in learned.items()},
        {
            g: [text for text, own in (train if held else test) if own == g][skipped : skipped + asked]
            for g in SIZES
            for skipped in [max(SIZES.values()) if held else 0]
        },
    )


def perplexities(local: Local, model: AdaptedModel, method: Method, setting: Setting, data: Tasks) -> Costs:
    """Learn the tasks, in one window or each in its own, and ask the mean of each about other posts."""
    together = [[g] for g in data.learned] if method.alone else [list(data.learned)]
    family, costs = method.family(setting), dict[str, tuple[float, int]]()
    for groups in together:
        start = root(model, family, chain_seed=1)
        learned = [(text, g) for g in groups for text in data.learned[g]]
        learn = learning(setting, len(learned))
        posterior = local.carry_out(_order(family, learn, start, learned=learned)).tensors
        asked = [(text, g) for g in groups for text in data.asked[g]]
        costs |= _costs(local.carry_out(_order(family, learn, posterior, asked=asked)).forecasts, asked)
    return costs


def untouched(model: AdaptedModel, data: Tasks) -> Costs:
    """Ask the model as it came."""
    asked = [(text, g) for g, texts in data.asked.items() for text in texts]
    question = NextTokens(model, Activations(model), correlation=1.0)
    said = question.foretell([text for text, _ in asked], [g for _, g in asked], [lambda _: {}])
    return _costs(said.tolist(), asked)


def _costs(said: Sequence[Sequence[float]], asked: Sequence[tuple[str, str]]) -> Costs:
    """Return nats and tokens of each group."""
    costs: dict[str, tuple[float, int]] = {}
    for (nats, tokens), (_, g) in zip(said, asked, strict=True):
        before = costs.get(g, (0.0, 0))
        costs[g] = (before[0] + nats, before[1] + int(tokens))
    return costs


def learning(setting: Setting, posts: int) -> LearnSpec:
    """Return so many passes that there are steps enough."""
    epochs = max(PASSES, math.ceil(STEPS / math.ceil(posts / BATCH)))
    return LearnSpec(schedule=Schedule(epochs=epochs, batch=BATCH, lr=setting.lr), draws=0, beta=1.0)


def _order(
    family: FamilySpec,
    learn: LearnSpec,
    parent: Tensors,
    *,
    learned: Sequence[tuple[str, str]] = (),
    asked: Sequence[tuple[str, str]] = (),
) -> Order:
    return Order(
        window=0,
        family=family,
        learn=learn,
        chain_seed=1,
        seed=1,
        parent=parent,
        labels_before=(),
        labels=("post",),
        arrivals=tuple(text for text, _ in asked),
        members=tuple((text, "post") for text, _ in learned),
        arrival_tasks=tuple(g for _, g in asked),
        member_tasks=tuple(g for _, g in learned),
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """Fits that were done are read, others are done and kept; `what` says of what they are, by what code."""

    folder: Path
    model: AdaptedModel
    local: Local
    what: str

    def run(self, method: Method, setting: Setting, data: Tasks) -> dict[str, Any]:
        """Return perplexity and what it comes from, from the folder if the same was done before."""
        schedules = [learning(setting, posts) for posts in (1, 1000)]
        said = f"{method}/{method.family(setting)}/{schedules}/{self.what}/{data}"
        path = self.folder / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
        if not path.is_file():
            begun = time.process_time()
            costs = perplexities(self.local, self.model, method, setting, data)
            path.parent.mkdir(parents=True, exist_ok=True)
            run = {
                "method": method.name,
                "setting": asdict(setting),
                "costs": costs,
                "core_seconds": round(time.process_time() - begun),
            }
            path.with_suffix(".tmp").write_text(json.dumps(run))
            path.with_suffix(".tmp").replace(path)
        found: dict[str, Any] = json.loads(path.read_text())
        found["perplexity"] = overall(found["costs"])
        where = f"sd_up {setting.sd_up:g} lr {setting.lr:g}"
        print(f"{method.name:<14} {where:<20} perplexity {found['perplexity']:8.2f}", flush=True)
        return found


def measured(bench: Bench, held: Tasks, data: Tasks) -> dict[str, Any]:
    """Choose every method's setting on posts held back, then do every method; returns the result."""
    tried = {m.name: [bench.run(m, setting, held) for setting in GRID] for m in CHOOSING}
    best = {name: Setting(**min(runs, key=_perplexity)["setting"]) for name, runs in tried.items()}
    runs = [bench.run(m, best[m.name], data) for m in CHOOSING]
    runs += [bench.run(m, best["hierarchical"], data) for m in CURVE]
    start = untouched(bench.model, data)
    sizes = {g: len(texts) for g, texts in data.learned.items()}
    runs.insert(0, {"method": "untouched", "costs": start, "core_seconds": 0})
    return told(runs, sizes, [m.name for m in CURVE]) | {
        "held_back": {
            n: [{**r["setting"], "perplexity": r["perplexity"]} for r in t] for n, t in tried.items()
        }
    }


def _perplexity(run: Mapping[str, Any]) -> float:
    return float(run["perplexity"])


def random_model(folder: Path) -> Path:
    """Write a random Llama of two layers under the small encoder's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in encoder_path(Settings()).glob("*token*"):
        shutil.copy(path, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="a random model and few posts: does it run?")
    quick: bool = asked.parse_args().quick
    torch.set_num_threads(1)
    folder = HOME / "quick" if quick else HOME
    encoder = random_model(folder / "model") if quick else smollm2()
    spec = ModelSpec(
        encoder=str(encoder),
        dtype="bfloat16",
        objective="tokens",
        sites=SITES.replace("28|29", "1") if quick else SITES,
        max_tokens=16 if quick else 64,
    )
    model = AdaptedModel(spec)
    by = code("activations", "cut", "language", "unembedding")
    what = f"{'random' if quick else WEIGHTS_SHA256}/{spec.sites}/{spec.max_tokens}/{by}"
    bench = Bench(folder, model, Local(model), what)
    share = 0.04 if quick else 1.0
    result = measured(bench, tasks(TRIED * share, held=True), tasks(share))
    print(json.dumps(result["relation"], indent=1))
    if not quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        RESULT.with_suffix(".svg").write_text(figure(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
