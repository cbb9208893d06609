"""What the kept runs come to: a row each, comparisons, targets, curves, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import torch

from benchmarks.study.former import Place, Summary, all_comparisons, all_rows, place
from benchmarks.study.kept import Run, Shelf
from benchmarks.study.measures import measures
from benchmarks.study.methods import JOINT, LORA, PRIORFLOW, TEMPERED, Method, step_sizes
from benchmarks.study.streams import Stream
from benchmarks.study.targets import comparisons, control, targets, with_scaled
from benchmarks.study.walk import Trace
from priorflow import scores
from priorflow.run import machine

SEEDS: Final = (1, 2, 3)  # of the whole study
NOT_BUILT: Final = (
    "LoRA with weight prior and count-based class prior",
    "replay of equal bytes",
    "EWC with Kronecker factors",
    "IVON in sequence",
    "a slow prior (CoVON)",
    "frozen encoder with warm softmax or Laplace head",
    "gaussian_lowrank, bora, bhpeft and monteclora as methods",
    "temperatures for methods other than LoRA, with and without EWC or replay",
)
DRAWN: Final = (PRIORFLOW, LORA, "frozen_panel")


def summarised(
    held: Shelf, known: Sequence[Stream], chosen: Sequence[Method], *, main: Sequence[str], former: Summary
) -> dict[str, Any]:
    """Return the summary of every run that is there or was told of, whichever code made it."""
    pi_new, names = held.settings.learn.pi_new, [stream.name for stream in known]
    runs = {(s.name, m.name, seed): r for s in known for m in chosen for seed, r in _runs(held, s, m)}
    traces = with_scaled({at: run.trace for at, run in runs.items()}, pi_new=pi_new)
    rows = all_rows(
        [_row(at, trace, runs, pi_new) for at, trace in traces.items()],
        former,
        names,
        [*(method.name for method in chosen), *TEMPERED],
    )
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
        "curves": {
            **former.get("curves", {}),
            **{name: curves(traces, name, pi_new) for name in names if (name, LORA, 1) in traces},
        },
        "missing": _missing({place(row) for row in rows}, names, chosen, main),
        "not_built": list(NOT_BUILT),
    }


def _runs(held: Shelf, stream: Stream, method: Method) -> list[tuple[int, Run]]:
    asked = SEEDS if method.seeded else (0,)
    found = ((seed, held.find(stream, method, seed)) for seed in asked)
    return [(seed, run) for seed, run in found if run is not None]


def _row(
    at: tuple[str, str, int], trace: Trace, runs: Mapping[tuple[str, str, int], Run], pi_new: float
) -> dict[str, Any]:
    stream, method, seed = at
    source = runs[stream, TEMPERED.get(method, method), seed]
    found = {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in measures(trace, pi_new=pi_new).items()
    }
    return {"stream": stream, "method": method, "seed": seed, **found, "code": source.code}


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
        "step sizes": {**step_sizes(), "from": "benchmarks/results/mails.json, whose rows name their grids"},
        "beyond the grid": "prior scales and the panel's constants were chosen on the mails",
        "joint": "one training on all windows, as retraining after the last one would be",
        "held out": "texts of each window that nobody learns; answered by the mean weights",
        "cpu_seconds": "process time of foretelling and learning, without the frozen prefix, which all share",
        "new_class_auroc": "p(new) where a method says it, else 1 - its largest probability",
        "scaled": "one temperature a window, the best for the windows before it",
        "intervals": "95 %, paired bootstrap over texts; texts of one thread are not independent",
        "verdict": "with an interval: met or short where all of it is on one side, else open",
    }


def curves(traces: Mapping[tuple[str, str, int], Trace], name: str, pi_new: float) -> dict[str, Any]:
    """Return, window by window, accuracy on all held-out texts so far and what texts cost beforehand."""
    out: dict[str, Any] = {"accuracy": {}, "prequential_nll": {}}
    for method in (*DRAWN, f"{LORA}_scaled", JOINT):
        trace = traces.get((name, method, 1))
        if trace is None:
            continue
        if method not in TEMPERED:
            out["accuracy"][method] = [round(_mean(row), 4) for row in trace.matrix]
        if trace.told:
            told = [scores.Prediction(t.window, t.label, t.forecast) for t in trace.told]
            windows = scores.prequential(told, pi_new=pi_new).windows
            out["prequential_nll"][method] = {str(w + 1): round(s.nll, 4) for w, s in windows.items()}
    return out


def _mean(row: Sequence[float | None]) -> float:
    known = [a for a in row if a is not None]
    return sum(known) / len(known)
