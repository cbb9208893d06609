"""Runs that were done, kept as traces by all that decides them, so that a study that stopped goes on."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.mails_stream import ROOT, code_sha256, demo_settings
from benchmarks.study.chain import Frozen
from benchmarks.study.methods import Method
from benchmarks.study.streams import Stream
from benchmarks.study.walk import Told, Trace, together, walk
from priorflow.config import Settings
from priorflow.learning import model_spec
from trainers.activations import Activations
from trainers.model import AdaptedModel

HOME: Final = ROOT / ".priorflow" / "bench-study"
_STUDY: Final = Path(__file__).parent
# What decides every run here, beside all of posterior and trainers.
_CODE: Final = ("chain.py", "ewc.py", "heads.py", "learners.py", "walk.py")


@dataclass(frozen=True, slots=True)
class Run:
    """A kept run: which, by what code, and all that it has shown."""

    stream: str
    method: str
    seed: int
    code: str
    trace: Trace


class Shelf:
    """Kept runs of one size of the study; reads those that are there, makes those that are asked for."""

    def __init__(self, settings: Settings, folder: Path, code: str) -> None:
        """Keep runs below a folder."""
        self.settings, self._folder, self._code = settings, folder, code
        self._frozen: Frozen | None = None
        self._shown = ""

    def find(self, stream: Stream, method: Method, seed: int) -> Run | None:
        """Return the run, if it was done; its code may be older than today's."""
        path = self._path(stream, method, seed)
        if not path.is_file():
            return None
        with gzip.open(path, "rt", encoding="utf-8") as file:
            held = json.load(file)
        return Run(stream.name, method.name, seed, held["code"], trace_of(held["trace"]))

    def make(self, stream: Stream, method: Method, seed: int, tick: Callable[[], None]) -> Run:
        """Return the run by today's code, done now unless it is there."""
        found, code = self.find(stream, method, seed), code_with(self._code, method.files)
        if found is not None and found.code == code:
            return found
        learner = method.make(lambda: self._at_hand(stream), seed)
        lead = together if method.together else walk
        run = Run(stream.name, method.name, seed, code, lead(learner, stream, time.process_time, tick))
        path = self._path(stream, method, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with gzip.open(temporary, "wt", encoding="utf-8") as file:
            json.dump({"code": run.code, "trace": asdict(run.trace)}, file)
        temporary.replace(path)
        return run

    def _at_hand(self, stream: Stream) -> Frozen:
        """Return the frozen model with the stream's texts seen, so that no method pays for what all share."""
        if self._frozen is None or self._shown != stream.digest:
            torch.set_num_threads(1)
            model = AdaptedModel(model_spec(self.settings)) if self._frozen is None else self._frozen.model
            self._frozen = Frozen(model, Activations(model, limit_bytes=2 << 30))
            texts = [e.text for part in (stream.windows, stream.held) for window in part for e in window]
            self._frozen.activations.sight(texts)
            self._shown = stream.digest
        return self._frozen

    def _path(self, stream: Stream, method: Method, seed: int) -> Path:
        model = self.settings.model.model_dump_json()
        said = json.dumps([stream.digest, method.name, dict(method.said), seed, model])
        key = hashlib.sha256(said.encode()).hexdigest()[:12]
        return self._folder / stream.name / f"{method.name}-{seed}-{key}.json.gz"


def shelf(*, quick: bool) -> Shelf:
    """Return the study's shelf, or that of its quick version."""
    digest = hashlib.sha256(code_sha256().encode())
    for name in _CODE:
        digest.update((_STUDY / name).read_bytes())
    return Shelf(demo_settings(HOME), HOME / ("quick" if quick else "full"), digest.hexdigest()[:12])


def code_with(shared: str, files: Sequence[str], folder: Path = _STUDY) -> str:
    """Return what stands for all code of a method, `files` being its own; without any, what all share."""
    if not files:
        return shared
    digest = hashlib.sha256(shared.encode())
    for name in files:
        digest.update(f"\n{name}\n".encode())
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]


def trace_of(held: dict[str, Any]) -> Trace:
    """Return a trace as it was before it became JSON."""
    return Trace(
        told=tuple(Told(**one) for one in held["told"]),
        matrix=tuple(tuple(row) for row in held["matrix"]),
        final=tuple(Told(**one) for one in held["final"]),
        foretell_cpu=tuple(held["foretell_cpu"]),
        learn_cpu=tuple(held["learn_cpu"]),
        carried=held["carried"],
    )
