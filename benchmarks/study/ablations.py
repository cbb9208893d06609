"""What each part of the default is worth: the default with one thing changed, and features and heads apart.

    .venv/bin/python -m benchmarks.study.ablations [--streams mails vader news] [--methods ...] [--summary]

One seed, the step size of the default, whatever is changed. Runs are kept as the study's are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import torch

from benchmarks.mails_stream import ROOT
from benchmarks.study.__main__ import run
from benchmarks.study.ancestors import SAMPLE, Ancestral
from benchmarks.study.branches import MOST, SURPRISE, Branches
from benchmarks.study.ceilings import Headed
from benchmarks.study.changed import changes_table, minus, without_stale
from benchmarks.study.former import Summary, all_rows
from benchmarks.study.kept import HOME, Shelf, shelf
from benchmarks.study.learners import Adapted
from benchmarks.study.measures import measures
from benchmarks.study.methods import (
    LORA,
    PRIORFLOW,
    AtHand,
    Method,
    adapted,
    frozen_features,
    maximum_likelihood,
    methods,
    step_sizes,
    stepping,
)
from benchmarks.study.page import RESULTS, published, results_table
from benchmarks.study.streams import Example, Stream, streams
from benchmarks.study.transported import Transported
from benchmarks.study.walk import Learner
from priorflow.config import Settings
from priorflow.learning import family_spec, learn_spec
from priorflow.run import machine
from trainers.window import FamilySpec, LearnSpec

STREAMS: Final = ("mails", "vader", "news", "recurring")
SEED: Final = 1
# Of the study's own methods those that the ablations are read beside.
BESIDE: Final = (PRIORFLOW, LORA, "joint", "frozen_panel", "frozen_after_4", "blob", "frozen_lda")
RESULT: Final = RESULTS / "ablations.json"
PAGE: Final = ROOT / "docs" / "ablations.md"


def ablations(settings: Settings) -> dict[str, Method]:
    """Return the default with one thing changed, by name, and the ceilings of features and heads."""
    learn, lr = stepping(learn_spec(settings), step_sizes()["blob and panel"]), step_sizes()
    ours, point = family_spec(settings), FamilySpec(name="point")
    likeliest = maximum_likelihood(learn, lr["sequential LoRA"])
    made = [
        adapted("point_beside", point, replace(likeliest, panel=True)),
        *(
            adapted(f"{name}_beside", FamilySpec(name=name), learn)
            for name in ("gaussian_kron", "gaussian_lowrank")
        ),
        *(
            adapted(f"{name}_alone", FamilySpec(name=name), replace(learn, panel=False))
            for name in ("gaussian_kron", "gaussian_lowrank")
        ),
        adapted("rows_slower", FamilySpec(name=ours.name, options={**ours.options, "head_step": 0.2}), learn),
        adapted("nothing_forgotten", ours, replace(learn, beta=1.0)),
        adapted("by_the_mean", ours, replace(learn, draws=0)),
        *(
            _headed(name, point, likeliest, anew=anew, together=together)
            for name, anew, together in (
                ("features_in_sequence_head_too", False, False),
                ("features_in_sequence_head_anew", True, False),
                ("features_joint", True, True),
            )
        ),
        _transported("features_in_sequence_head_transported", point, likeliest),
        Method(
            name="ancestors",
            make=lambda at_hand, seed: Ancestral(at_hand(), ours, learn, seed),
            said={"family": str(ours), "learn": str(learn), "sample": SAMPLE},
            files=("ancestors.py",),
        ),
        _branches("branches", point, likeliest, pi_new=settings.learn.pi_new),
    ]
    return {method.name: method for method in made}


def _headed(name: str, family: FamilySpec, learn: LearnSpec, *, anew: bool, together: bool) -> Method:
    def make(at_hand: AtHand, seed: int) -> Learner:
        return Headed(Adapted(at_hand(), family, lambda _: learn, seed=seed), anew=anew)

    return Method(name=name, make=make, said={"learn": str(learn), "anew": anew}, together=together)


def _transported(name: str, family: FamilySpec, learn: LearnSpec) -> Method:
    return Method(
        name=name,
        make=lambda at_hand, seed: Transported(Adapted(at_hand(), family, lambda _: learn, seed=seed)),
        said={"learn": str(learn)},
        files=("transported.py",),
    )


def _branches(name: str, family: FamilySpec, learn: LearnSpec, *, pi_new: float) -> Method:
    def make(at_hand: AtHand, seed: int) -> Learner:
        frozen = at_hand()

        def opened(window: Sequence[Example]) -> Adapted:
            branch = Adapted(frozen, family, lambda _: learn, seed=seed)
            branch.learn(window)
            return branch

        return Branches(frozen_features(frozen), opened, pi_new=pi_new)

    said = {"learn": str(learn), "pi_new": pi_new, "most": MOST, "surprise": SURPRISE}
    return Method(name=name, make=make, said=said, files=("branches.py",))


def summarised(
    held: Shelf, made: Sequence[Stream], chosen: Sequence[Method], former: Summary
) -> dict[str, Any]:
    """Return a row for every run that is there, or was told of."""
    rows = [row for stream in made for row in _rows(held, stream, chosen)]
    done = {row["stream"] for row in rows if row["method"] == PRIORFLOW}
    told = {"rows": without_stale(former.get("rows", ()), done)}
    return {
        "name": "ablations",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": f"seed {SEED}; settings of the default but for what the name says",
        "rows": all_rows(rows, told, [s.name for s in made], [m.name for m in chosen]),
    }


def _rows(held: Shelf, stream: Stream, chosen: Sequence[Method]) -> list[dict[str, Any]]:
    """Return a stream's rows; where the default was run too, with what a run is minus the default's."""
    found = {m.name: held.find(stream, m, SEED if m.seeded else 0) for m in chosen}
    kept = {name: run for name, run in found.items() if run is not None}
    default, pi_new = kept.get(PRIORFLOW), held.settings.learn.pi_new
    rows = []
    for name, made in kept.items():
        row: dict[str, Any] = {"stream": stream.name, "method": name, "seed": SEED, "code": made.code}
        said = measures(made.trace, pi_new=pi_new)
        row |= {k: round(v, 5) if isinstance(v, float) else v for k, v in said.items()}
        if default is not None and name != PRIORFLOW:
            row["minus"] = minus(made.trace, default.trace, pi_new=pi_new)
        rows.append(row)
    return rows


def tables(said: Mapping[str, Any]) -> str:
    """Return the rows as tables of a page: all of them minus the default's, then one for each stream."""
    rows = said["rows"]
    changes = changes_table(rows, list(dict.fromkeys(row["method"] for row in rows)))
    parts = [
        f"### {name}\n\n{results_table(said, name)}" for name in dict.fromkeys(row["stream"] for row in rows)
    ]
    return "\n\n".join([f"Written {said['date']}.", f"### Minus the default\n\n{changes}", *parts])


def main() -> None:
    """Run what is missing; write and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", nargs="+", default=list(STREAMS))
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--summary", action="store_true", help="run nothing, tell what is there")
    asked, held = parser.parse_args(), shelf(quick=False)
    ours = ablations(held.settings)
    beside = {name: m for name, m in methods(held.settings).items() if name in BESIDE}
    everything = {**beside, **ours}
    made = [make() for name, make in streams(HOME).items() if name in asked.streams]
    if not asked.summary:
        run(held, made, [everything[name] for name in asked.methods or ours], [SEED])
    former = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    every = [make() for name, make in streams(HOME).items() if name in STREAMS]
    said = summarised(held, every, list(everything.values()), former)
    RESULT.write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    PAGE.write_text(published(PAGE.read_text(encoding="utf-8"), tables(said)), encoding="utf-8")
    print(tables(said))


if __name__ == "__main__":
    main()
