"""Choose step sizes of the study's later methods from the grid that the earlier ones had, on the mails.

    .venv/bin/python -m benchmarks.study.tuning [--methods ivon covon ...] [--quick]

Seed 1, by prequential NLL, which no held-out text enters. Runs are kept as the study's are, so that of the
chosen step size is its run of seed 1; methods that are not named stay as they were chosen. `--quick` tries it
on little of the mails and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.mails import GRID
from benchmarks.study.__main__ import QUICK
from benchmarks.study.kept import HOME, Shelf, shelf
from benchmarks.study.measures import measures
from benchmarks.study.methods import TUNING, Method, stepped
from benchmarks.study.streams import Stream, cut, streams
from priorflow.run import machine

STREAM: Final = "mails"
SEED: Final = 1
MEASURES: Final = ("prequential_nll", "final_accuracy")


def tried(held: Shelf, stream: Stream, make: Callable[[float], Method], lr: float) -> dict[str, Any]:
    """Return what a method comes to at a step size."""
    method = make(lr)
    print(f"{method.name}, step {lr:g} ", end="", file=sys.stderr, flush=True)
    run = held.make(stream, method, SEED, _tick)
    print(file=sys.stderr)
    found = measures(run.trace, pi_new=held.settings.learn.pi_new)
    return {"lr": lr, **{name: round(found[name], 5) for name in MEASURES}, "code": run.code}


def chosen(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the step size that foretells best, the first of equals, beside what each of the grid gave."""
    best = min(points, key=lambda point: point["prequential_nll"])
    return {"lr": best["lr"], "grid": list(points)}


def written(found: Mapping[str, Any], told: Path = TUNING) -> dict[str, Any]:
    """Return the choices as a file tells them, those of other methods as it told them before."""
    before = json.loads(told.read_text(encoding="utf-8"))["methods"] if told.is_file() else {}
    return {
        "name": "tuning",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": f"{STREAM}, seed {SEED}; the step size with the least prequential NLL",
        "methods": {**before, **found},
    }


def main() -> None:
    """Try every point of the grid; write and print the choices."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--quick", action="store_true", help="on little of the mails; not written")
    asked = parser.parse_args()
    held = shelf(quick=asked.quick)
    made = streams(HOME)[STREAM]()
    stream, known = cut(made, **QUICK) if asked.quick else made, stepped(held.settings)
    found = {}
    for name in asked.methods or known:
        found[name] = chosen([tried(held, stream, known[name], lr) for lr in GRID])
        print(json.dumps({name: found[name]}, indent=1))
        if not asked.quick:
            TUNING.write_text(json.dumps(written(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _tick() -> None:
    print(".", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
