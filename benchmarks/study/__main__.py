"""Run what is missing of the study, then write its summary, figure and page.

    .venv/bin/python -m benchmarks.study [--quick] [--streams ...] [--methods ...] [--seeds 1 2 3] [--summary]

Finished runs are kept under .priorflow/bench-study and not done again until the learner's code changes;
`--summary` runs nothing and tells what is there, each row with the code it was measured with. Rows of runs
that are not kept here stay as the last summary told them, so that a study can be made on several machines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.study.kept import HOME, Shelf, shelf
from benchmarks.study.methods import Method, methods
from benchmarks.study.page import publish, published_before
from benchmarks.study.streams import Stream, cut, streams
from benchmarks.study.summary import summarised

MAIN = ("mails", "vader", "news", "r8")
QUICK = {"learn": 120, "held": 60}  # texts a window
QUICK_METHODS = ("priorflow", "sequential_lora", "joint", "frozen_panel", "frozen_lda", "naive_bayes")


def main() -> None:
    """Run and tell."""
    asked = _arguments()
    held = shelf(quick=asked.quick)
    known, makers = methods(held.settings), streams(HOME)
    chosen = [known[name] for name in asked.methods or (QUICK_METHODS if asked.quick else known)]
    made = [
        _stream(makers[name](), quick=asked.quick)
        for name in asked.streams or (MAIN if asked.quick else makers)
    ]
    if not asked.summary:
        run(held, made, chosen, asked.seeds)
    everything = made if asked.quick else [makers[name]() for name in makers]
    former = {} if asked.quick else published_before()
    said = summarised(held, everything, list(known.values()), main=MAIN, former=former)
    publish(said, quick=asked.quick)


def run(held: Shelf, made: Sequence[Stream], chosen: Sequence[Method], seeds: Sequence[int]) -> None:
    """Make every run that is missing, seed by seed, so that a study cut short has all streams once."""
    for seed in seeds:
        for stream in made:
            for method in chosen:
                if method.seeded or seed == seeds[0]:
                    print(f"{stream.name}, {method.name}, seed {seed} ", end="", file=sys.stderr, flush=True)
                    held.make(stream, method, seed if method.seeded else 0, _tick)
                    print(file=sys.stderr)


def _stream(made: Stream, *, quick: bool) -> Stream:
    return cut(made, **QUICK) if quick else made


def _tick() -> None:
    print(".", end="", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it; not written")
    parser.add_argument("--streams", nargs="+", help="only these")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--summary", action="store_true", help="run nothing, tell what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
