"""Does a snapshot load in a clean process, and answer? `python -m priorflow.smoke` is that process.

It gets its order on standard input as JSON, reads the blob by its sha, asks one text, and says on standard
output what it heard: {"label": ...}. Nothing of the parent's memory can help it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from posterior.snapshot import Snapshot
from priorflow.config import Settings
from priorflow.learning import family_spec, learn_spec, model_spec
from trainers.guards import Smoke

LONGEST_S: Final = 120.0
_TEXT: Final = "Is anybody there?"
_SAID: Final = 300  # characters of an error that are told


def smoke(settings: Settings, snapshot: Snapshot) -> Smoke:
    """Load a snapshot in a process of its own and ask it something; costs the seconds torch takes to load."""
    order = {
        "blobs": settings.blobs_url,
        "posterior": snapshot.posterior,
        "labels": snapshot.labels,
        "window": snapshot.index,
        "chain_seed": settings.chain.seed,
        "model": asdict(model_spec(settings)),
        "family": asdict(family_spec(settings)),
        "draws": learn_spec(settings).draws,
        "pi_new": settings.learn.pi_new,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "priorflow.smoke"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        return Smoke(snapshot=snapshot.sha, loaded=False, why=f"no answer within {LONGEST_S:.0f} s")
    if done.returncode == 0 and _label(done.stdout) in snapshot.labels:
        return Smoke(snapshot=snapshot.sha, loaded=True)
    told = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[-_SAID:]
    return Smoke(snapshot=snapshot.sha, loaded=False, why=told or f"it ended with status {done.returncode}")


def _label(said: str) -> object:
    try:
        return json.loads(said.splitlines()[-1])["label"]
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _answer(order: Mapping[str, Any]) -> str:
    # Only the clean process needs these, and they take seconds.
    from connectors.blobs import open_blobs  # noqa: PLC0415
    from posterior.families import make_family  # noqa: PLC0415
    from posterior.tensors import from_bytes  # noqa: PLC0415
    from trainers.activations import Activations  # noqa: PLC0415
    from trainers.answer import Answerer  # noqa: PLC0415
    from trainers.model import AdaptedModel, ModelSpec  # noqa: PLC0415

    spec = order["model"]
    model = AdaptedModel(ModelSpec(**{**spec, "parts": tuple(spec["parts"])}))
    answerer = Answerer(
        model,
        Activations(model),
        make_family(order["family"]["name"], order["family"]["options"]),
        from_bytes(open_blobs(order["blobs"]).get(order["posterior"])),
        order["labels"],
        window=order["window"],
        chain_seed=order["chain_seed"],
        draws=order["draws"],
        pi_new=order["pi_new"],
    )
    return answerer.answer(_TEXT).label


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"label": _answer(json.load(sys.stdin))}) + "\n")
