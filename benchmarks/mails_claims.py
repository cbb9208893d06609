"""What the runs on the mails come to: means over seeds, claims, and how they are shown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.mails_methods import JOINT, LORA

Run = Mapping[str, Any]  # the measures of one method, step size and seed


def averaged(runs: Sequence[Run]) -> dict[str, Any]:
    """Return means over seeds of every number, and the spread of those that matter."""
    out: dict[str, Any] = {"runs": len(runs)}
    for name in runs[0]:
        values = [r[name] for r in runs]
        if name in {"final_by_window", "code", "lr"} or None in values:
            out[name] = values[0]
        elif name == "seed":
            out[name] = values
        else:
            out[name] = statistics.fmean(values)
            if len(values) > 1 and name.endswith(("accuracy", "nll", "ece", "forgetting")):
                out[f"{name}_sd"] = statistics.stdev(values)
    return out


def claims(by: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return what a belief is to show against sequential LoRA and joint training, each met or short."""
    asked = (
        ("prequential NLL, at most sequential LoRA's", "prequential_nll", LORA, 1.0, 0.0, "nats"),
        ("prequential ECE, at most sequential LoRA's", "prequential_ece", LORA, 1.0, 0.0, "share"),
        ("forgetting, at most half of sequential LoRA's", "forgetting", LORA, 0.5, 0.0, "share"),
        ("final accuracy, at least sequential LoRA's", "final_accuracy", LORA, 1.0, 0.0, "share"),
        ("learning accuracy, within .01 of sequential LoRA's", "learning_accuracy", LORA, 1.0, 0.01, "share"),
        ("final accuracy, within .01 of joint training's", "final_accuracy", JOINT, 1.0, 0.01, "share"),
    )
    return [
        _claim(f"{name}: {what}", by[name], measure, share * by[other][measure] - slack, unit)
        for what, measure, other, share, slack, unit in asked
        if name in by and other in by
    ]


def _claim(what: str, ours: Mapping[str, Any], name: str, target: float, unit: str) -> dict[str, Any]:
    measured = ours[name]
    met = measured >= target if name.endswith("accuracy") else measured <= target
    return {
        "what": what,
        "target": round(target, 4),
        "measured": round(measured, 4),
        "unit": unit,
        "runs": ours["runs"],
        "verdict": "met" if met else "short",
    }


def pretty(by: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table for a terminal."""
    asked = "prequential_accuracy prequential_nll prequential_ece final_accuracy forgetting"
    names = f"{asked} learning_accuracy kl_nats learn_seconds".split()
    heads = (n.replace("prequential", "preq").replace("accuracy", "acc") for n in names)
    lines = [f"{'':16}" + "".join(f"{head:>16}" for head in heads)]
    for method, row in by.items():
        cells = ("-" if row[n] is None else f"{row[n]:.3f}" for n in names)
        lines.append(f"{method:16}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)
