"""BoRA's first claim: perplexity per task, hierarchical below both separate and joint adapters.

    .venv/bin/python -m benchmarks.papers.bora_perplexity [--quick]

Eight groups of 20 Newsgroups are tasks of 25 to 200 posts, each cut at 64 tokens; SmolLM2-135M predicts
their next tokens with LoRA at query and value of its last layer, over prefixes computed once.

    separate       a Gaussian belief of its own for every task (blob)
    joint          one for all of them
    hierarchical   tasks under a shared Gaussian, how far apart they lie being learned (bora)
    apart a        the paper's points (bora, fit: map), tau = a^-2 held fixed

All by the production update: same sites, epochs, step size, scales of the prior and evidence per token. The
means are asked about 50 other posts of every group. About one core-hour; every finished run is kept in
.priorflow/bench-bora-perplexity and not done again. `--quick` takes a random model of two layers: it shows
that all of this runs, and nothing else.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.papers.texts import ROOT, newsgroups
from benchmarks.smollm2 import TOP, WEIGHTS_SHA256, smollm2
from posterior.family import Tensors
from priorflow.config import Settings
from priorflow.learning import encoder_path
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec, Local, Order, root

SIZES: Final = {
    "comp.graphics": 200,
    "comp.os.ms-windows.misc": 100,
    "comp.sys.ibm.pc.hardware": 50,
    "comp.sys.mac.hardware": 25,
    "comp.windows.x": 200,
    "sci.crypt": 100,
    "sci.electronics": 50,
    "sci.space": 25,
}
ASKED: Final = 50  # other posts of each group
APART: Final = (0.02, 0.25, 1.0, 4.0, 16.0)  # from one adapter for all to one for each
LEARN: Final = LearnSpec(schedule=Schedule(epochs=5, batch=8, lr=0.05), draws=0, beta=1.0)
HOME: Final = ROOT / ".priorflow" / "bench-bora-perplexity"
RESULT: Final = ROOT / "benchmarks" / "results" / "papers" / "bora_perplexity.json"
Costs = Mapping[str, tuple[float, int]]  # nats and tokens of each task


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is learned and what is asked, by group."""

    learned: Mapping[str, Sequence[str]]
    asked: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Method:
    """A family, and which tasks share a belief: each alone, or all."""

    name: str
    family: FamilySpec
    alone: bool = False


METHODS: Final = (
    Method("separate", FamilySpec(name="blob"), alone=True),
    Method("joint", FamilySpec(name="blob")),
    Method("hierarchical", FamilySpec(name="bora")),
    *(Method(f"apart {a:g}", FamilySpec(name="bora", options={"fit": "map", "apart": a})) for a in APART),
)


def tasks(share: float) -> Tasks:
    """Return the first posts of each group; of a share of them, at least two."""
    parts: list[dict[str, list[str]]] = []
    for name, sizes in (("train", SIZES), ("test", dict.fromkeys(SIZES, ASKED))):
        posts = list(dict.fromkeys(newsgroups("train" if name == "train" else "test")))
        counts = {g: max(2, round(share * n)) for g, n in sizes.items()}
        parts.append({g: [text for text, own in posts if own == g][:n] for g, n in counts.items()})
    return Tasks(*parts)


def perplexities(local: Local, model: AdaptedModel, method: Method, data: Tasks) -> Costs:
    """Learn the tasks, in one window or each in its own, and ask the mean of each about other posts."""
    together = [[g] for g in data.learned] if method.alone else [list(data.learned)]
    costs: dict[str, tuple[float, int]] = {}
    for groups in together:
        start = root(model, method.family, chain_seed=1)
        learned = [(text, g) for g in groups for text in data.learned[g]]
        posterior = local.carry_out(_order(method, start, learned=learned)).tensors
        asked = [(text, g) for g in groups for text in data.asked[g]]
        said = local.carry_out(_order(method, posterior, asked=asked)).forecasts
        for g in groups:
            rows = [row for row, (_, own) in zip(said, asked, strict=True) if own == g]
            costs[g] = (sum(row[0] for row in rows), int(sum(row[1] for row in rows)))
    return costs


def _order(
    method: Method,
    parent: Tensors,
    *,
    learned: Sequence[tuple[str, str]] = (),
    asked: Sequence[tuple[str, str]] = (),
) -> Order:
    return Order(
        window=0,
        family=method.family,
        learn=LEARN,
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


def kept(folder: Path, method: Method, what: str, make: Any) -> dict[str, Any]:
    """Return a run, from the folder if the same was done before."""
    key = hashlib.sha256(f"{method}/{LEARN}/{what}".encode()).hexdigest()[:16]
    path = folder / f"{method.name.replace(' ', '-')}-{key}.json"
    if not path.is_file():
        begun = time.process_time()
        costs = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"method": method.name, "costs": costs, "core_seconds": round(time.process_time() - begun)}
        path.with_suffix(".tmp").write_text(json.dumps(told))
        path.with_suffix(".tmp").replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def told(runs: Sequence[Mapping[str, Any]], data: Tasks) -> dict[str, Any]:
    """Return claim, rows, relation and whether it holds."""
    rows = {
        run["method"]: {
            "perplexity": math.exp(
                sum(c[0] for c in run["costs"].values()) / sum(c[1] for c in run["costs"].values())
            ),
            "by_task": {g: math.exp(nats / tokens) for g, (nats, tokens) in run["costs"].items()},
            "core_seconds": run["core_seconds"],
        }
        for run in runs
    }
    total = {name: row["perplexity"] for name, row in rows.items()}
    curve = [total[f"apart {a:g}"] for a in APART]
    lowest = curve.index(min(curve))
    sizes = {g: len(texts) for g, texts in data.learned.items()}
    gains = {g: math.log(rows["separate"]["by_task"][g] / rows["hierarchical"]["by_task"][g]) for g in sizes}
    few, many = (
        sum(gains[g] for g in sizes if sizes[g] == size) / sum(sizes[g] == size for g in sizes)
        for size in (min(sizes.values()), max(sizes.values()))
    )
    relations = {
        "hierarchical below separate": total["hierarchical"] < total["separate"],
        "hierarchical below joint": total["hierarchical"] < total["joint"],
        "the curve over apart has its minimum inside": 0 < lowest < len(APART) - 1,
        "tasks of the fewest posts gain most over separate": few > many,
    }
    return {
        "claim": "perplexity: hierarchical below separate and joint adapters (paper: 12.82, 16.80, 13.91)",
        "rows": rows,
        "posts": sizes,
        "gain_nats_per_token": {"fewest posts": few, "most posts": many},
        "relation": relations,
        "holds": all(relations.values()),
        "shrunk": f"{sum(sizes.values())} posts of 64 tokens, the last of 30 layers, one seed",
    }


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
    sites = TOP.replace("29", "1") if quick else TOP
    length = 16 if quick else 64
    model = AdaptedModel(ModelSpec(encoder=str(encoder), objective="tokens", sites=sites, max_tokens=length))
    local, data = Local(model), tasks(0.04 if quick else 1.0)
    what = f"{'random' if quick else WEIGHTS_SHA256}/{sites}/{data}"
    runs = []
    for method in METHODS:
        runs.append(kept(folder, method, what, lambda m=method: perplexities(local, model, m, data)))
        nats, tokens = (sum(c[i] for c in runs[-1]["costs"].values()) for i in (0, 1))
        print(f"{method.name:<14} perplexity {math.exp(nats / tokens):8.2f}  {runs[-1]['core_seconds']} s")
    result = told(runs, data)
    print(json.dumps(result["relation"], indent=1))
    if not quick:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
