"""What the kept runs come to: a row each, comparisons, targets, curves, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from benchmarks.study.curves import curves
from benchmarks.study.former import Place, Summary, all_comparisons, all_curves, all_rows, place
from benchmarks.study.kept import Run, Shelf
from benchmarks.study.measures import measures
from benchmarks.study.methods import PRIORFLOW, Method, step_sizes, tuned_steps
from benchmarks.study.readings import SCALED, source, with_scaled
from benchmarks.study.seeds import SEEDS
from benchmarks.study.streams import Stream
from benchmarks.study.targets import comparisons, control, targets
from benchmarks.study.walk import Trace
from priorflow.run import machine


def summarised(
    held: Shelf, known: Sequence[Stream], chosen: Sequence[Method], *, main: Sequence[str], former: Summary
) -> dict[str, Any]:
    """Return the summary of every run that is there or was told of, whichever code made it."""
    pi_new, names = held.settings.learn.pi_new, [stream.name for stream in known]
    runs = {(s.name, m.name, seed): r for s in known for m in chosen for seed, r in _runs(held, s, m)}
    traces = with_scaled({at: run.trace for at, run in runs.items()}, pi_new=pi_new)
    told_of = [*(m.name for m in chosen), *(f"{m.name}{SCALED}" for m in chosen)]
    rows = all_rows([_row(at, trace, runs, pi_new) for at, trace in traces.items()], former, names, told_of)
    done = {stream for stream, method, _ in runs if method == PRIORFLOW}
    found = all_comparisons(comparisons(traces, names, pi_new=pi_new), former, done)
    shuffled = [name for name in names if name.endswith("_shuffled")]
    return {
        "name": "study",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": how(held, known),
        "main": list(main),
        "rows": rows,
        "comparisons": [one.as_json() for one in found],
        "targets": [*targets(rows, found, main), *control(found, shuffled)],
        "curves": all_curves({name: curves(traces, name, pi_new) for name in names}, former, names, told_of),
        "missing": _missing({place(row) for row in rows}, names, chosen, main),
    }


def _runs(held: Shelf, stream: Stream, method: Method) -> list[tuple[int, Run]]:
    asked = SEEDS if method.seeded else (0,)
    found = ((seed, held.find(stream, method, seed)) for seed in asked)
    return [(seed, run) for seed, run in found if run is not None]


def _row(
    at: tuple[str, str, int], trace: Trace, runs: Mapping[tuple[str, str, int], Run], pi_new: float
) -> dict[str, Any]:
    stream, method, seed = at
    found = {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in measures(trace, pi_new=pi_new).items()
    }
    return {
        "stream": stream,
        "method": method,
        "seed": seed,
        **found,
        "code": runs[stream, source(method), seed].code,
    }


def _missing(
    told: Collection[Place], names: Sequence[str], chosen: Sequence[Method], main: Sequence[str]
) -> list[str]:
    """Name the runs of the whole study that are not there: three seeds on main streams, one on others."""
    out = []
    for stream in names:
        asked = SEEDS if stream in main else SEEDS[:1]
        gone: dict[str, list[str]] = {}
        for method in chosen:
            seeds = asked if method.seeded else (0,)
            lacking = [str(seed) for seed in seeds if (stream, method.name, seed) not in told]
            said = f" (seed {' '.join(lacking)})" if lacking and method.seeded else ""
            gone.setdefault(said, []).extend([method.name] if lacking else [])
        parts = [f"{', '.join(methods)}{said}" for said, methods in gone.items() if methods]
        out += [f"{stream}: {'; '.join(parts)}"] if parts else []
    return out


def how(held: Shelf, known: Sequence[Stream]) -> dict[str, Any]:
    """Say what a reader must know before believing the numbers."""
    learn = held.settings.learn
    return {
        "streams": {
            s.name: {"learned": [len(w) for w in s.windows], "held_out": [len(w) for w in s.held]}
            for s in known
        },
        "model": held.settings.model.model_dump(mode="json"),
        "epochs": learn.epochs,
        "batch": learn.batch,
        "draws": learn.draws,
        "pi_new": learn.pi_new,
        "step sizes": {
            **step_sizes(),
            **tuned_steps(),
            "from": "benchmarks/results/mails.json, and tuning.json beside this; their rows name the grids",
        },
        "beyond the grid": "prior scales and the panel's constants were chosen on the mails",
        "joint": "one training on all windows, as retraining after the last one would be",
        "held out": "texts of each window that nobody learns; answered by the mean weights",
        "cpu_seconds": "process time of foretelling and learning, without the frozen prefix, which all share",
        "new_class_auroc": "p(new) where a method says it, else 1 - its largest probability",
        "scaled": "one temperature a window, the best for the windows before it",
        "ece": "15 bins of confidence, of equal width or, where adaptive, of as many texts each",
        "curves": "each method's first seed: nats an event by window, from 1; error among the surest",
        "intervals": "95 %, over what `over` says: texts by paired bootstrap, seeds by Student's t",
        "verdict": "with an interval: met or short where all of it is on one side, else open",
    }
