"""One set of weights as files of a Hugging Face PEFT folder, which `PeftModel.from_pretrained` loads.

    ours    out + (alpha / rank) B (A x)          A (rank, d_in), B (d_out, rank)
    PEFT    the same: lora_A.weight is A, lora_B.weight is B, and lora_alpha / r the scale

`trainers.model.warm_start` reads what is written here. Class rows are ours and no classifier of theirs: they
lie beside, in head.safetensors, and priorflow.json says what they are multiplied by:

    logits = rows x + bias        x = scale pooled / |pooled|, or scale pooled where it is not `normalised`

An adapter with a nonlinearity and a prefix have no place in such a folder, nor have signs that every token
draws anew (`posterior.flipout`): they are refused, for without them answers would be others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from posterior import flipout
from posterior.family import Draw, Tensors
from posterior.tensors import require_finite, to_bytes
from trainers.model import HEAD, PEFT_WEIGHTS, AdaptedModel, encoder_sha256, peft_name
from trainers.single import Whose
from trainers.unembedding import REACH

FORMAT: Final = 1
CONFIG: Final = "adapter_config.json"
ROWS: Final = "head.safetensors"
FACTS: Final = "priorflow.json"
FILES: Final = (CONFIG, PEFT_WEIGHTS, ROWS, FACTS)

_ROOT: Final = "base_model.model."  # what PEFT puts before the names of the model it wraps
_WITHOUT_PANEL: Final = (
    "left out: the chain's forecasts pool these class rows with heads that generate what the frozen model "
    "sees, which also says how likely a new class is; this folder holds the belief of the class rows alone"
)
_SHA: Final = 12  # characters of the snapshot's sha in the adapter's name
_TASK_SHA: Final = 6


class NoPeftForm(ValueError):
    """What is believed has a part that no PEFT LoRA folder can hold; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose weights these are; `draw` None means the mean, `draws` is how many prediction uses."""

    snapshot: str
    chain: str
    window: int
    labels: tuple[str, ...]
    chain_seed: int
    draw: int | None
    draws: int
    whose: Whose
    panel: bool

    @property
    def name(self) -> str:
        """Return a name that no other weights have: servers that hold many adapters ask by it."""
        parts = [self.chain, str(self.window), self.snapshot[:_SHA]]
        if self.whose.new:
            parts.append("new-task")
        elif self.whose.task is not None:
            parts.append(_plain(self.whose.task))
        return "-".join(parts if self.draw is None else [*parts, f"draw{self.draw}"])


def _plain(task: str) -> str:
    """Return a task's name without what addresses and file names cannot hold, still its own."""
    digest = hashlib.sha256(task.encode()).hexdigest()[:_TASK_SHA]
    return f"task-{re.sub('[^A-Za-z0-9]+', '-', task).strip('-')}-{digest}".replace("--", "-")


def files_of(model: AdaptedModel, draw: Draw, origin: Origin) -> dict[str, bytes]:
    """Return the folder's files by name; NoPeftForm if it could not say what the draw says."""
    refuse_other_parts(model.spec.parts)
    weights = _single(draw)
    require_finite(weights, where=f"export of {origin.name}")
    files = {CONFIG: _json(config(model)), PEFT_WEIGHTS: to_bytes(adapter(model, weights))}
    if HEAD in weights:
        rows = weights[HEAD]
        assert len(rows) == len(origin.labels), (len(rows), origin.labels)
        files[ROWS] = to_bytes({"rows": rows[:, :-1].clone(), "bias": rows[:, -1].clone()})
    return {**files, FACTS: _json(facts(model, origin))}


def refuse_other_parts(parts: tuple[str, ...]) -> None:
    """Raise NoPeftForm unless LoRA is all that is adapted."""
    others = [part for part in parts if part != "lora"]
    if others:
        msg = (
            f"this chain adapts by {' and '.join(others)}, for which a PEFT LoRA folder has no place: "
            "without it answers would be others. Answer with `priorflow serve`, or learn the log into a "
            "chain of LoRA alone: `priorflow replay --into NAME --set model.parts=[lora]`"
        )
        raise NoPeftForm(msg)


def _single(draw: Draw) -> Tensors:
    """Return the weights without the axis of sequences."""
    if flipout.SIGNS in draw:
        msg = (
            "this family draws signs anew for every token (family.flipout), so that no one set of weights "
            "is a draw of its predictions; export the mean: leave --draw out"
        )
        raise NoPeftForm(msg)
    assert all(len(weights) == 1 for weights in draw.values())
    return {name: weights[0].detach() for name, weights in draw.items()}


def adapter(model: AdaptedModel, weights: Tensors) -> dict[str, Tensor]:
    """Return the LoRA weights under PEFT's names."""
    named = {slot.name: peft_name(slot) for slot in model.slots(0)}
    return {f"{_ROOT}{model.inside}{tail}": weights[name] for name, tail in named.items() if tail is not None}


def config(model: AdaptedModel) -> dict[str, Any]:
    """Return what adapter_config.json says; layers are named in full, so that no others match."""
    spec = model.spec
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION" if spec.objective == "classes" else "CAUSAL_LM",
        "base_model_name_or_path": spec.encoder,
        "inference_mode": True,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha == int(spec.alpha) else spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": [f"{model.inside}{site.name}" for site in model.sites],
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def facts(model: AdaptedModel, origin: Origin) -> dict[str, Any]:
    """Return what priorflow.json says: whose weights these are, and how texts meet them."""
    spec = model.spec
    mean = {"kind": "mean"}
    draw = {"kind": "draw", "number": origin.draw, "of": origin.draws, "chain_seed": origin.chain_seed}
    return {
        "format": FORMAT,
        "adapter": origin.name,
        "snapshot": origin.snapshot,
        "chain": origin.chain,
        "window": origin.window,
        "weights": mean if origin.draw is None else draw,
        "task": origin.whose.task,
        "new_task": origin.whose.new,
        "base": {
            "encoder": spec.encoder,
            "sha256": encoder_sha256(spec),
            "load_with": "AutoModel" if spec.objective == "classes" else "AutoModelForCausalLM",
            "dtype": spec.dtype,
        },
        "objective": spec.objective,
        "max_tokens": spec.max_tokens,
        "ask": spec.ask if spec.objective == "answer" else None,
        "head": None if spec.objective == "tokens" else _head_facts(model, origin),
        "panel": _WITHOUT_PANEL if origin.panel else None,
    }


def _head_facts(model: AdaptedModel, origin: Origin) -> dict[str, Any]:
    """Return the labels in the order of the rows, and how a text's last states become what rows meet."""
    if model.spec.objective == "answer":
        features: Mapping[str, Any] = {
            "pooling": "last",
            "normalised": False,
            "scale": REACH / model.out.gain,
        }
    else:
        features = {"pooling": model.spec.pooling, "normalised": True, "scale": model.dim**0.5}
    return {"labels": list(origin.labels), **features}


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
