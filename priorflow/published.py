"""What a version takes along so that it can answer away from home, and the version opened there.

`answering.json` lies beside posterior and manifest. It holds the chain's learning settings, whose sha the
manifest has, and so what the model, the family and the encoder's bytes must be; and what a server of that
time goes by besides: by how many draws it answers, and past windows' confidences, from which the rule follows
by which an answer is withheld. Where the encoder lies it
only suggests: a folder does not travel.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from connectors.manifest import read_manifest
from connectors.mlflow_registry import MANIFEST, POSTERIOR
from posterior.families import make_family
from posterior.snapshot import Json, LedgerCorrupt, Snapshot
from priorflow.answering import ANSWERING, FORMAT, Answering
from priorflow.config import ConfigError
from priorflow.learning import encoder_sha256, recorded_model
from stream.plan import sha256_json
from trainers.activations import Activations
from trainers.answer import Answerer, AnswerSpec, NothingLearned, answerer_of
from trainers.model import AdaptedModel, ModelSpec, encoder_folder
from trainers.window import FamilySpec

ENCODER: Final = "PRIORFLOW_ENCODER"  # where the encoder lies here
_WITHOUT_DRAWS: Final = 1  # the format that does not say by how many draws a version answers


class CannotOpen(ValueError):
    """A version's folder is not what was published, or what it needs is not here."""


def read_answering(data: bytes) -> Answering:
    """Read what `Answering.to_bytes` wrote; CannotOpen if it is anything else."""
    try:
        said: dict[str, Any] = json.loads(data)
        form = said.pop("format")
        if form == _WITHOUT_DRAWS:
            form, said["draws"] = FORMAT, said["settings"]["learn"]["draws"]
        told = [(int(step), int(seen), int(right)) for step, seen, right in said.pop("confidences")]
        answering = Answering(confidences=told, **said)
    except (ValueError, TypeError, KeyError, AttributeError) as broken:
        msg = f"{ANSWERING} cannot be read: {broken!r}"
        raise CannotOpen(msg) from broken
    if form != FORMAT:
        msg = f"{ANSWERING} has format {form}; this release of priorflow reads {FORMAT}"
        raise CannotOpen(msg)
    return answering


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A version that was opened; `answerer` is None where the snapshot has nothing to answer."""

    snapshot: Snapshot
    answering: Answering
    answerer: Answerer | None


def open_published(folder: Path, encoder: str = "") -> Published:
    """Verify a version's folder against its shas and make it ready to answer.

    The encoder is read from `encoder`, else where PRIORFLOW_ENCODER says, else where it lay at home; its
    bytes must be those that the chain was learned on.
    """
    answering = read_answering(_read(folder, ANSWERING))
    snapshot, posterior = _verified(folder, answering)
    where = encoder or os.environ.get(ENCODER) or answering.encoder
    try:
        answerer = _answerer(_model(answering.settings, where), answering, snapshot, posterior)
    except NothingLearned:
        answerer = None
    return Published(snapshot=snapshot, answering=answering, answerer=answerer)


def _verified(folder: Path, answering: Answering) -> tuple[Snapshot, bytes]:
    try:
        snapshot = read_manifest(_read(folder, MANIFEST).decode(), answering.snapshot)
    except (LedgerCorrupt, UnicodeDecodeError) as broken:
        raise CannotOpen(str(broken)) from broken
    posterior = _read(folder, POSTERIOR)
    if hashlib.sha256(posterior).hexdigest() != snapshot.posterior:
        msg = f"{folder / POSTERIOR} was altered: it is not the posterior of snapshot {snapshot.sha}"
        raise CannotOpen(msg)
    if sha256_json(answering.settings) != snapshot.settings:
        msg = f"{folder / ANSWERING} was altered: these are not the settings of snapshot {snapshot.sha}"
        raise CannotOpen(msg)
    return snapshot, posterior


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as missing:
        msg = f"{folder / name}: cannot be read ({missing.strerror}); download the version's whole folder"
        raise CannotOpen(msg) from missing


def _model(settings: Json, where: str) -> ModelSpec:
    """Return the model to load, its encoder found and verified."""
    try:
        spec = recorded_model(settings, where)
        found = encoder_sha256(encoder_folder(spec))
    except TypeError as unknown:
        msg = f"this release of priorflow does not know such a model ({unknown}); see requirements.txt"
        raise CannotOpen(msg) from unknown
    except (FileNotFoundError, ConfigError) as missing:
        msg = f"the encoder is not here: {missing}; {_elsewhere(settings)}"
        raise CannotOpen(msg) from missing
    if found != settings["model"]["encoder"]:
        msg = f"the encoder at {where} is another one (sha256 {found}); {_elsewhere(settings)}"
        raise CannotOpen(msg)
    return spec


def _elsewhere(settings: Json) -> str:
    wanted = settings["model"]["encoder"]
    return f"name the folder that has sha256 {wanted} in {ENCODER}, or as model_config={{'encoder': FOLDER}}"


def _answerer(spec: ModelSpec, answering: Answering, snapshot: Snapshot, posterior: bytes) -> Answerer:
    if spec.objective == "tokens":  # before a large model is loaded in vain
        raise NothingLearned(spec.objective)
    settings = answering.settings
    family = settings["family"]
    said = AnswerSpec(
        family=FamilySpec(name=family["name"], options=family["options"]),
        chain_seed=settings["seed"],
        draws=answering.draws,
        pi_new=settings["learn"]["pi_new"],
    )
    try:
        make_family(said.family.name, said.family.options)  # before a large model is loaded in vain
    except ValueError as unknown:
        msg = f"snapshot {snapshot.sha} cannot be opened here: {unknown}"
        raise CannotOpen(msg) from unknown
    model = AdaptedModel(spec)
    return answerer_of(
        model, Activations(model), said, posterior, labels=snapshot.labels, window=snapshot.index
    )
