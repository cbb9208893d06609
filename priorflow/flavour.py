"""What makes a version loadable by MLflow alone: files beside its posterior and manifest.

    MLmodel               says so: models-from-code, signature, examples; JSON, which is YAML
    model.py              the code, four lines that name priorflow's class; nothing is pickled
    answering.json        how the snapshot answers (`priorflow.published`)
    requirements.txt, python_env.yaml        what it was published with
    input_example.json, serving_input_example.json

All are functions of the snapshot, of the ledger's rows before it, of how `serve` is set and of what is
installed. MLflow is not imported: its format is written, so that publishing stays what it was.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import Any, Final

from connectors.mlflow_registry import MANIFEST, POSTERIOR, Dressing, MlflowRegistry
from posterior.snapshot import Ledger, LedgerCorrupt, Snapshot
from priorflow.answering import ALL, ANSWERING, Answering
from priorflow.config import Settings
from priorflow.opening import registry
from trainers.abstention import CONFIDENCES, Tally
from trainers.line import sha_before

CODE: Final = b'''"""A posterior of priorflow, to be loaded by mlflow.pyfunc.load_model."""

from mlflow.models import set_model

from priorflow.pyfunc import Posterior

set_model(Posterior())
'''
INPUTS: Final = {"text": True, "id": False, "task": False}  # texts all; whether a row must have it
OUTPUTS: Final = {
    "label": "string",
    "probability": "double",
    "probabilities": "map",
    "novelty": "double",
    "low": "double",
    "high": "double",
    "total": "double",
    "aleatoric": "double",
    "epistemic": "double",
    "abstain": "boolean",
    "snapshot": "string",
    "version": "string",
    "prediction_id": "string",
}
ABSENT: Final = ("version", "prediction_id")  # may be null
EXAMPLE: Final = {"columns": ["text", "id"], "data": [["the kernel will not boot any more", "ticket-17"]]}
# What decides an answer's bits, or reads these files.
PINNED: Final = ("mlflow", "pandas", "priorflow", "safetensors", "tokenizers", "torch", "transformers")
_PACKAGE: Final = "package:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a server answers: by how many draws (None: those it was learned with), and what it withholds.

    At which risk (1: nothing is), unless one asks for another, and by how many windows.
    """

    draws: int | None = None
    risk: float = 0.1
    alpha: float = 0.05
    windows: int = 10


def as_served(settings: Settings) -> Serving:
    """Return how the server of these settings answers."""
    serve = settings.serve
    risk = ALL if serve.risk is None else serve.risk
    return Serving(draws=serve.draws, risk=risk, alpha=serve.risk_alpha, windows=serve.risk_windows)


def publishing(settings: Settings, ledger: Ledger) -> MlflowRegistry:
    """Return the registry for whoever may publish: each version it makes loads by MLflow alone."""
    return registry(settings, flavour(ledger, settings.model.encoder, as_served(settings)))


def flavour(ledger: Ledger, encoder: str, serving: Serving | None = None) -> Dressing:
    """Return what dresses a snapshot for MLflow; `encoder` is where it lies here."""
    rules = serving or Serving()

    def dress(snapshot: Snapshot) -> dict[str, bytes]:
        return {
            "MLmodel": _json(ml_model(snapshot, rules)),
            "model.py": CODE,
            ANSWERING: answering(ledger, snapshot, encoder, rules).to_bytes(),
            "requirements.txt": "".join(f"{line}\n" for line in requirements(encoder)).encode(),
            "python_env.yaml": _json(_python_env()),
            "input_example.json": _json(EXAMPLE),
            "serving_input_example.json": _json({"dataframe_split": EXAMPLE}),
        }

    return dress


def answering(ledger: Ledger, snapshot: Snapshot, encoder: str, rules: Serving) -> Answering:
    """Return how a snapshot answers, by its chain's settings and its windows up to it."""
    chain = ledger.chain(snapshot.chain)
    if chain is None:
        msg = f"the ledger has snapshot {snapshot.sha} and not its chain {snapshot.chain!r}"
        raise LedgerCorrupt(msg)
    return Answering(
        snapshot=snapshot.sha,
        settings=chain.settings,
        encoder=encoder,
        draws=chain.settings["learn"]["draws"] if rules.draws is None else rules.draws,
        confidences=confidences(ledger, snapshot, rules.windows),
        risk=rules.risk,
        alpha=rules.alpha,
    )


def confidences(ledger: Ledger, snapshot: Snapshot, windows: int) -> Tally:
    """Add up how sure forecasts were, and how often right, in the newest windows in force up to here."""
    seen, right, left = Counter[int](), Counter[int](), windows
    for row in _line(ledger, snapshot):
        told: Tally = row.report.get(CONFIDENCES) or ()
        for step, count, correct in told:
            seen[step] += count
            right[step] += correct
        left -= bool(told)
        if left == 0:
            break
    return [(step, seen[step], right[step]) for step in sorted(seen)]


def _line(ledger: Ledger, snapshot: Snapshot) -> Iterator[Snapshot]:
    """Walk back from a snapshot over rows in force, within its chain: those that a server goes by."""
    row: Snapshot | None = snapshot
    while row is not None:
        yield row
        sha = sha_before(row)
        found = None if sha is None else ledger.snapshot(sha)
        row = None if found is None or found[0].chain != snapshot.chain else found[0]


def ml_model(snapshot: Snapshot, rules: Serving) -> dict[str, Any]:
    """Return the content of MLmodel. No time and no id in it: the same snapshot gives the same bytes."""
    held = {"answering": ANSWERING, "manifest": MANIFEST, "posterior": POSTERIOR}
    return {
        "flavors": {
            "python_function": {
                "artifacts": {name: {"path": file} for name, file in held.items()},
                "config": {"encoder": ""},  # MLflow lets load_model override only what is named here
                "env": {"virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.pyfunc.loaders.code_model",
                "model_code_path": "model.py",
                "python_version": platform.python_version(),
                "streamable": False,
            }
        },
        "metadata": {"chain": snapshot.chain, "index": snapshot.index, "snapshot_sha": snapshot.sha},
        "mlflow_version": version("mlflow"),
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": signature(rules),
    }


def signature(rules: Serving) -> dict[str, str]:
    """Return what goes in and comes out, and what may be asked beside, in MLflow's form."""
    inputs = [{"name": name, "type": "string", "required": must} for name, must in INPUTS.items()]
    outputs = [{"name": name, **_column(kind, name not in ABSENT)} for name, kind in OUTPUTS.items()]
    asked = {"risk": rules.risk, "alpha": rules.alpha}
    params = [{"name": n, "type": "double", "default": v, "shape": None} for n, v in asked.items()]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": json.dumps(params)}


def _column(kind: str, required: bool) -> dict[str, Any]:
    values = {"values": {"type": "double", "required": True}} if kind == "map" else {}
    return {"type": kind, "required": required, **values}


@cache
def requirements(encoder: str) -> tuple[str, ...]:
    """Pin what was there at publication, the package that holds the encoder included."""
    owners: list[str] = []
    if encoder.startswith(_PACKAGE):
        module = encoder.removeprefix(_PACKAGE).partition("/")[0]
        owners = packages_distributions().get(module, [])
    return tuple(f"{name}=={_public(version(name))}" for name in sorted({*PINNED, *owners}))


def _public(found: str) -> str:
    """Drop a build's own mark (2.13.0+cu130): an index need not have that build."""
    return found.partition("+")[0]


def _python_env() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()
