"""What each version has to answer, computed from its snapshot beforehand; answers are held against it.

A request is mixed if one of its answers is not what the version that it names gives to that text, or if its
answers name two versions. An answer is misnamed if the registry's number in it, or the snapshot in its
prediction id, is not that snapshot's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch

from posterior.snapshot import Blobs, Ledger, Snapshot
from priorflow.config import Settings
from priorflow.learning import model_spec
from priorflow.opening import MLFLOW
from priorflow.serving.version import ready
from trainers.activations import Activations
from trainers.model import AdaptedModel

TOLERANCE: Final = 1e-5  # of a probability, between two processes
APART: Final = 1e-3  # what two versions say of a text that tells them apart: far beyond the tolerance

Probabilities = Mapping[str, float]  # by class


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A version's number in the registry, and what it says of each text."""

    number: str
    answers: Mapping[str, Probabilities]


Expected = Mapping[str, Voice]  # by sha of the snapshot


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What is wrong with a request's answers."""

    mixed: bool
    misnamed: bool


def faults(expected: Expected, texts: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> Faults:
    """Hold the answers to a request's texts, in their order, against what was to be answered."""
    shas = {answer["snapshot"] for answer in answers}
    known = [expected.get(answer["snapshot"]) for answer in answers]
    said = [
        voice is not None and distance(answer["probabilities"], voice.answers[text]) <= TOLERANCE
        for text, answer, voice in zip(texts, answers, known, strict=True)
    ]
    named = [
        voice is not None
        and answer["version"] == voice.number
        and answer["prediction_id"].endswith(answer["snapshot"][:12])
        for answer, voice in zip(answers, known, strict=True)
    ]
    return Faults(mixed=len(shas) != 1 or not all(said), misnamed=not all(named))


def distance(one: Probabilities, other: Probabilities) -> float:
    """Return how far apart two answers are in the probability of any class; a class not told has none."""
    return max(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other})


def told_apart(expected: Expected, texts: Sequence[str]) -> list[str]:
    """Return the texts by whose answers any two versions are told apart."""
    voices = list(expected.values())
    pairs = [(one, other) for place, one in enumerate(voices) for other in voices[:place]]
    return [t for t in texts if all(distance(a.answers[t], b.answers[t]) > APART for a, b in pairs)]


def expect(
    settings: Settings, ledger: Ledger, blobs: Blobs, snapshots: Sequence[Snapshot], texts: Sequence[str]
) -> Expected:
    """Ask each snapshot about each text, in this process."""
    torch.set_num_threads(settings.learn.threads)
    model = AdaptedModel(model_spec(settings))
    activations = Activations(model)
    out = {}
    for snapshot in snapshots:
        number = ledger.reference(snapshot.sha, MLFLOW)
        assert number is not None, f"window {snapshot.index} was not published"
        posterior = blobs.get(snapshot.posterior)
        version = ready(
            settings, model, activations, snapshot, posterior, rule=None, settled=True, name=number
        )
        answers = {text: dict(version.answerer.answer(text).probabilities) for text in texts}
        out[snapshot.sha] = Voice(number=number, answers=answers)
    return out
