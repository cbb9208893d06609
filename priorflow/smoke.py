"""Does a snapshot load in a clean process, and answer in time? `python -m priorflow.smoke` is that process.

It gets its order on standard input as JSON, reads the blob by its sha, asks one text, and says on standard
output what it heard and how long more texts took: {"label": ..., "took_ms": [...]}. Nothing of the parent's
memory can help it, and no signal for the parent reaches it: whoever stops a run says nothing of a candidate.
Timed texts are as long as the model reads, and none comes twice: what was computed for one is of no use to
the next.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from posterior.snapshot import Snapshot
from priorflow.config import Settings
from priorflow.learning import family_spec, learn_spec, model_spec
from trainers.guards import Latency, Smoke

LONGEST_S: Final = 120.0
# What a process brings upon itself; any other signal came from somebody, or from want of memory.
_CRASHES: Final = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_TEXT: Final = "Is anybody there?"
_SAID: Final = 300  # characters of an error that are told


def smoke(settings: Settings, snapshot: Snapshot) -> Smoke:
    """Load a snapshot in a process of its own and ask it something; costs the seconds torch takes to load.

    Where `gate.max_p99_ms` is set it is asked `gate.min_answers` texts more, with the draws and threads of a
    server, and each answer is timed.
    """
    gate, serve = settings.gate, settings.serve
    answers = 0 if gate.max_p99_ms is None else gate.min_answers
    longest_s = LONGEST_S + 2 * answers * (gate.max_p99_ms or 0.0) / 1000
    order = {
        "blobs": settings.blobs_url,
        "posterior": snapshot.posterior,
        "labels": snapshot.labels,
        "window": snapshot.index,
        "model": asdict(model_spec(settings)),
        "family": asdict(family_spec(settings)),
        "asked": {
            "chain_seed": settings.chain.seed,
            "draws": learn_spec(settings).draws if serve.draws is None else serve.draws,
            "pi_new": settings.learn.pi_new,
        },
        "threads": settings.learn.threads,
        "answers": answers,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "priorflow.smoke"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=longest_s,
            check=False,
            start_new_session=True,  # Ctrl-C is for the run to hear
            env={**os.environ, "OMP_NUM_THREADS": str(settings.learn.threads)},
        )
    except subprocess.TimeoutExpired:
        return Smoke(snapshot=snapshot.sha, loaded=False, why=f"not done within {longest_s:.0f} s")
    return _heard(snapshot, done)


def _heard(snapshot: Snapshot, done: subprocess.CompletedProcess[str]) -> Smoke:
    """Return what came of it; one that crashed does not load, one that somebody ended was not heard out."""
    said = _said(done.stdout)
    if done.returncode == 0 and said.get("label") in snapshot.labels:
        return Smoke(snapshot=snapshot.sha, loaded=True, latency=latency(said["took_ms"]))
    if done.returncode < 0:
        ended = -done.returncode not in _CRASHES
        return Smoke(snapshot=snapshot.sha, loaded=False, ended=ended, why=f"signal {-done.returncode}")
    told = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[-_SAID:]
    return Smoke(snapshot=snapshot.sha, loaded=False, why=told or f"it ended with status {done.returncode}")


def latency(took_ms: Sequence[float]) -> Latency | None:
    """Return the 99th percentile by nearest rank: of a hundred answers the slowest but one."""
    if not took_ms:
        return None
    rank = math.ceil(0.99 * len(took_ms)) - 1
    return Latency(answers=len(took_ms), p99_ms=sorted(took_ms)[rank])


def _said(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _answer(order: Mapping[str, Any]) -> dict[str, Any]:
    # Only the clean process needs these, and they take seconds.
    import torch  # noqa: PLC0415

    from connectors.blobs import open_blobs  # noqa: PLC0415
    from trainers.activations import Activations  # noqa: PLC0415
    from trainers.answer import AnswerSpec, answerer_of  # noqa: PLC0415
    from trainers.model import AdaptedModel, ModelSpec  # noqa: PLC0415
    from trainers.window import FamilySpec  # noqa: PLC0415

    torch.set_num_threads(order["threads"])
    spec = order["model"]
    model = AdaptedModel(ModelSpec(**{**spec, "parts": tuple(spec["parts"])}))
    answerer = answerer_of(
        model,
        Activations(model),
        AnswerSpec(family=FamilySpec(**order["family"]), **order["asked"]),
        open_blobs(order["blobs"]).get(order["posterior"]),
        labels=order["labels"],
        window=order["window"],
    )
    label, took_ms = answerer.answer(_TEXT).label, []
    for text in _texts(order["answers"], spec["max_tokens"]):
        begun = time.perf_counter()
        answerer.answer(text)
        took_ms.append(1000 * (time.perf_counter() - begun))
    return {"label": label, "took_ms": took_ms}


def _texts(count: int, tokens: int) -> list[str]:
    return [f"{number} {'anybody ' * tokens}" for number in range(count)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(json.load(sys.stdin))) + "\n")
