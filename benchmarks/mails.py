"""Quality on the mails: what sequential Bayes foretells and keeps, against LoRA, replay and joint training.

    .venv/bin/python benchmarks/mails.py [--quick] [--json] [--seeds 3]

The demo's 5,327 mails become the demo's 8 windows of 640 (the same records through the same intake, no
Kafka needed). Every method runs through the same learner at the same sites, for the same epochs; each has
its step size chosen from one grid by seed 1, on prequential NLL (joint training, which foretells nothing,
on final accuracy). Finished runs are kept under .priorflow/bench-mails and not done again until the
learner's code changes; each row of the result names the code it was measured with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.mails_claims import Run, averaged, claims, pretty
from benchmarks.mails_methods import BAG, BLOB, JOINT, LOW_RANK, OURS, REPLAYED, SAMPLE, Method, methods
from benchmarks.mails_stream import ROOT, code_sha256, demo_settings, demo_windows
from priorflow.baseline_river import bag_of_words
from priorflow.demo_baselines import Memory, Windows
from priorflow.learning import model_spec
from priorflow.run import chain_of, machine, rules_of
from priorflow.scores import final_accuracy, forgetting, prequential, spread
from stream.plan import Member
from trainers.model import AdaptedModel
from trainers.parts import Rules
from trainers.window import FamilySpec, Local, Order, Updater

GRID: Final = (0.1, 0.05, 0.2)  # step sizes, for every method
QUICK: Final = 160  # mails of each window that --quick learns
RESULT: Final = ROOT / "benchmarks" / "results" / "mails.json"


def measures(memory: Memory, windows: Windows, pi_new: float) -> dict[str, Any]:
    """Return everything that is asked of a run; None where a method has no such thing.

    Learning accuracy leaves out the first window: it holds one class, which everyone gets right.
    """
    total = prequential(memory.predictions, pi_new=pi_new).total if memory.predictions else None
    learned = [float(row[-1] or 0) for row in memory.matrix[1:]]
    return {
        "prequential_accuracy": total and total.accuracy,
        "prequential_nll": total and total.nll,
        "prequential_ece": total and total.ece,
        "final_accuracy": final_accuracy(memory.matrix, [len(windows[w]) for w in sorted(windows)]),
        "forgetting": forgetting(memory.matrix),
        "learning_accuracy": statistics.fmean(learned) if learned else None,
        "kl_nats": sum(memory.kl),
        "learn_seconds": sum(s.get("learn", 0.0) for s in memory.seconds),
        "predict_seconds": sum(s.get("predict", 0.0) for s in memory.seconds),
        "final_by_window": list(memory.matrix[-1]),
    }


class Bench:
    """Runs that were done are read, others are run and kept."""

    def __init__(self, *, quick: bool, old_too: bool) -> None:
        self.home = ROOT / ".priorflow" / "bench-mails"
        self.settings = demo_settings(self.home)
        self.windows: Windows = demo_windows(self.settings)
        self.rules = rules_of(self.settings, chain_of(self.settings))
        if quick:
            self.windows = {w: spread(members, QUICK) for w, members in self.windows.items()}
        self._what = {"quick": quick, "model": self.settings.model.model_dump_json()}
        self._code, self._old_too = code_sha256(), old_too
        self._updater: Updater | None = None

    @property
    def updater(self) -> Updater:
        """The learner, with the activations of all mails; opened by the first run that needs it."""
        if self._updater is None:
            torch.set_num_threads(1)
            self._updater = Local(AdaptedModel(model_spec(self.settings)))
            for members in self.windows.values():  # so that no method pays for what all share
                self._updater.carry_out(_look(self.rules, members))
        return self._updater

    def run(self, method: Method, *, lr: float, seed: int) -> Run:
        """Return the measures of a method at a step size and a seed."""
        learn = replace(self.rules.learn, **method.learn)
        rules = replace(
            self.rules,
            chain=replace(self.rules.chain, seed=seed),
            family=FamilySpec(name=method.family, options=dict(method.options)),
            learn=replace(learn, schedule=replace(learn.schedule, lr=lr)),
        )
        asked = [method.name, str(rules.family), str(rules.learn), seed, self._what]

        def through() -> Memory:
            return method.through(self.updater, rules, self.windows)

        title = f"{method.name}, lr {lr:g}, seed {seed}"
        return self._kept(title, json.dumps(asked), through) | {"lr": lr, "seed": seed}

    def bag(self) -> Run:
        """Return the measures of the bag of words, which no seed changes."""

        def through() -> Memory:
            made = bag_of_words(self.windows, sample=SAMPLE)
            return Memory(predictions=made.predictions, matrix=made.matrix)

        return self._kept(BAG, json.dumps([BAG, self._what]), through)

    def _kept(self, title: str, said: str, through: Callable[[], Memory]) -> dict[str, Any]:
        path = self.home / "runs" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
        kept: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"code": ""}
        )
        if kept["code"] == self._code or (kept["code"] and self._old_too):
            return {**kept["measures"], "code": kept["code"][:12]}
        print(f"{title} ", end="", file=sys.stderr, flush=True)
        found = measures(through(), self.windows, self.settings.learn.pi_new)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        kept = {"what": said, "code": self._code, "measures": found}
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        temporary.replace(path)
        told = {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}
        print(f" {told}", file=sys.stderr, flush=True)
        return {**found, "code": self._code[:12]}


def _look(rules: Rules, members: Sequence[Member]) -> Order:
    """Return an order that learns nothing, in no epoch, but fills the cache of activations."""
    return Order(
        window=0,
        family=FamilySpec(name="point", options={}),
        learn=replace(rules.learn, schedule=replace(rules.learn.schedule, epochs=0)),
        chain_seed=0,
        seed=0,
        parent={},
        labels_before=(),
        labels=("any",),
        arrivals=(),
        members=tuple((m.text, "any") for m in members),
    )


def tuned(bench: Bench, method: Method, grid: Sequence[float]) -> tuple[float, dict[str, float]]:
    """Return the step size that seed 1 does best with, and what each of the grid gave."""
    ceiling = method.name == JOINT
    found = {lr: bench.run(method, lr=lr, seed=1) for lr in grid}
    costs = {lr: -r["final_accuracy"] if ceiling else r["prequential_nll"] for lr, r in found.items()}
    return min(costs, key=costs.__getitem__), {f"{lr:g}": abs(cost) for lr, cost in costs.items()}


def table(bench: Bench, chosen: Sequence[Method], grid: Sequence[float], seeds: int) -> dict[str, Any]:
    """Return every method's measures, tuned first."""
    out = {BAG: averaged([bench.bag()])}
    for lr in grid:  # an interrupted run then has all methods at the first step size
        for method in chosen:
            bench.run(method, lr=lr, seed=1)
    for method in chosen:
        lr, gave = tuned(bench, method, grid)
        runs = [bench.run(method, lr=lr, seed=seed) for seed in range(1, seeds + 1)]
        out[method.name] = averaged(runs) | {"grid": gave}
    return out


def main() -> None:
    """Run what is missing; print the table, or everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"learn {QUICK} mails a window, one seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the tuned methods")
    parser.add_argument("--grid", type=float, nargs="+", default=GRID, help="step sizes to choose from")
    parser.add_argument("--methods", nargs="+", help="only these; others stay as they were measured")
    parser.add_argument("--json", action="store_true", help="print the result; a full run is also written")
    parser.add_argument("--old-too", action="store_true", help="take runs of earlier code as they are kept")
    asked = parser.parse_args()
    bench, begun = Bench(quick=asked.quick, old_too=asked.old_too), time.monotonic()
    everything = methods(bench.settings)
    chosen = [m for m in everything if asked.methods is None or m.name in asked.methods]
    by = table(bench, chosen, asked.grid, 1 if asked.quick else asked.seeds)
    if asked.methods and not asked.quick:
        by = measured_before() | by
    result = {
        "name": "mails",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "rows": [row for name in (OURS, BLOB, LOW_RANK) for row in claims(by, name)],
        "methods": by,
        "how": how(bench, quick=asked.quick),
        "not_run": [m.name for m in everything if m.name not in by],
    }
    if not asked.quick:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2) if asked.json else pretty(by))
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


def measured_before() -> dict[str, Any]:
    """Return the methods of the result as it stands, each with the code it was measured with."""
    return dict(json.loads(RESULT.read_text(encoding="utf-8"))["methods"]) if RESULT.is_file() else {}


def how(bench: Bench, *, quick: bool) -> dict[str, Any]:
    """Say what a reader must know before believing the numbers."""
    return {
        "stream": f"{len(bench.windows)} windows of {len(bench.windows[1])} mails, time order",
        "quick": quick,
        "epochs": bench.rules.learn.schedule.epochs,
        "family": dict(bench.rules.family.options),
        "beta": bench.rules.learn.beta if bench.rules.learn.beta is not None else "auto",
        "grid": "each row names the step sizes that seed 1 tried and what each gave, its seeds and its code",
        "beyond the grid": (
            "blob's prior scales were chosen by some fifteen runs on this stream, the panel's constants by "
            "as many of heads on frozen features"
        ),
        "final": f"accuracy of the mean weights on {SAMPLE} mails of each window, all learned before",
        "learning": "accuracy on a window's own mails right after it was learned, windows 2-8",
        OURS: "class rows and, beside them, two generative heads on the frozen model (docs/methods.md)",
        "replay": f"{REPLAYED} mails by reservoir learned again with each window: more steps, no evidence",
        "joint": "all windows at once, the same epochs",
        "seconds": "of rows that were run at different times beside other work: compare none",
    }


if __name__ == "__main__":
    main()
