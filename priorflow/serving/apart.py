"""Snapshots that answer in a process of their own, at the lowest priority.

What it does costs nobody here anything but the waiting: it has its own memory, its own interpreter, and the
processor when nobody else wants it. It may fail or die as it likes, and is started again, at most every
`_AGAIN_S`. The talk is one JSON object a line, on its standard input and output:

    {"model": ..., "asked": ..., "threads": ...}     {"ready": true}
    {"load": sha, "posterior": base64, ...}          {"loaded": sha}
    {"ask": sha, "text": ..., "task": ...}           {"answer": {...}}
                                                     {"error": "..."}

The first comes once, with what all snapshots have in common; an error answers any of them. The process
holds the `_HELD` snapshots that were loaded last, and ends with its input: so it outlives nobody.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Final, final

import torch

from posterior.family import ONE_TASK
from posterior.snapshot import Snapshot
from trainers.activations import Activations
from trainers.answer import Answer, Answerer, AnswerSpec, answerer_of
from trainers.model import AdaptedModel, ModelSpec
from trainers.window import FamilySpec

# Nice before anything is imported: loading torch is the most that it ever asks of the processor.
_PROGRAM: Final = "import os; os.nice(19); from priorflow.serving.apart import main; main()"
_STARTS_S: Final = 120.0  # until the model is loaded, beside others
_ANSWERS_S: Final = 60.0
_AGAIN_S: Final = 30.0
_HELD: Final = 2  # the one that answers, and the one that is about to
_MOST: Final = 1 << 16  # bytes of a pipe at once


class Unwell(RuntimeError):
    """The process has died or cannot be started, or what it was asked ended in an error."""


@final
class Apart:
    """The process, started when first needed; safe to share between threads, which take turns."""

    def __init__(
        self, model: ModelSpec, spec: AnswerSpec, *, threads: int, again_s: float = _AGAIN_S
    ) -> None:
        self._common = {"model": asdict(model), "asked": asdict(spec), "threads": threads}
        self._turn = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: list[str] = []
        self._again_s, self._not_before = again_s, 0.0
        self._closed = False

    def load(self, snapshot: Snapshot, posterior: bytes) -> Distant:
        """Have a snapshot loaded; Unwell says why it cannot answer."""
        told = {
            "load": snapshot.sha,
            "labels": list(snapshot.labels),
            "window": snapshot.index,
            "posterior": base64.b64encode(posterior).decode(),
        }
        with self._turn:
            self._require(told)
        return Distant(self, told)

    def asked(self, told: Mapping[str, Any], text: str, task: str) -> Answer:
        """Return a snapshot's answer; one that went with the process is loaded again."""
        with self._turn:
            self._require(told)
            said = self._talk({"ask": told["load"], "text": text, "task": task}, _ANSWERS_S)["answer"]
        return Answer(**{**said, "interval": tuple(said["interval"])})

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()  # whoever waits for it hears of that, and lets go of the turn
        with self._turn:
            self._end()

    def _require(self, told: Mapping[str, Any]) -> None:
        self._start()
        if told["load"] not in self._loaded:
            self._talk(told, _STARTS_S)
            self._loaded = [*self._loaded, told["load"]][-_HELD:]

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        if self._closed or time.monotonic() < self._not_before:
            msg = "the shadow's process has ended" + ("" if self._closed else "; it is started again soon")
            raise Unwell(msg)
        self._not_before, self._loaded = time.monotonic() + self._again_s, []
        self._process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us to hear
        )
        if self._closed:  # meanwhile: whoever closes has found nothing to end, and waits for the turn
            self._process.kill()
        try:
            self._talk(self._common, _STARTS_S)
        except Unwell:
            self._end()
            raise

    def _talk(self, said: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        """Say one thing and return what comes back; a process that does not answer in time is ended."""
        assert self._process is not None
        try:
            _write(self._process, json.dumps(said).encode() + b"\n")
            heard = _read_line(self._process, within_s)
        except OSError as broken:
            status = self._end()
            msg = f"the shadow's process is gone (status {status}): {broken}"
            raise Unwell(msg) from broken
        answer: dict[str, Any] = json.loads(heard)
        if "error" in answer:
            raise Unwell(answer["error"])
        return answer

    def _end(self) -> int | None:
        """End the process and let go of its pipes; return its status, None if there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        with suppress(OSError), process:  # which waits for it
            pass
        return process.returncode


@final
@dataclass(frozen=True)
class Distant:
    """A snapshot that answers in that process."""

    apart: Apart
    told: Mapping[str, Any]

    def answer(self, text: str, task: str = ONE_TASK) -> Answer:
        """Answer one text; Unwell if the process cannot."""
        return self.apart.asked(self.told, text, task)


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    view = memoryview(data)
    while view:
        view = view[os.write(process.stdin.fileno(), view[:_MOST]) :]


def _read_line(process: subprocess.Popen[bytes], within_s: float) -> bytes:
    """Read up to the end of a line; OSError if it does not come in time, or never will."""
    assert process.stdout is not None
    pipe, heard, end = process.stdout.fileno(), b"", time.monotonic() + within_s
    while not heard.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        part = os.read(pipe, _MOST) if ready else b""
        if not part:
            msg = "it said no more" if ready else f"nothing was heard for {within_s:.0f} s"
            raise OSError(msg)
        heard += part
    return heard


def main() -> None:
    """Be that process: answer what comes in until nothing more does."""
    # The line to whoever asks is for answers alone: what libraries print goes where errors go.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answering: _Answering | None = None
    for line in sys.stdin.buffer:
        said = json.loads(line)
        try:
            if answering is None:
                answering, told = _Answering(said), dict[str, Any](ready=True)
            else:
                told = answering.hear(said)
        except Exception as failed:  # noqa: BLE001 - whatever it is, whoever asked is told
            told = {"error": f"{type(failed).__name__}: {failed}"}
        out.write(json.dumps(told) + "\n")
        out.flush()


@final
class _Answering:
    """What the process holds: the model, and the snapshots that were loaded last."""

    def __init__(self, common: Mapping[str, Any]) -> None:
        torch.set_num_threads(common["threads"])
        spec, asked = common["model"], common["asked"]
        self._model = AdaptedModel(ModelSpec(**{**spec, "parts": tuple(spec["parts"])}))
        self._spec = AnswerSpec(**{**asked, "family": FamilySpec(**asked["family"])})
        self._activations = Activations(self._model)
        self._held: dict[str, Answerer] = {}

    def hear(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Do what was asked for."""
        if "ask" in said:
            return {"answer": asdict(self._held[said["ask"]].answer(said["text"], said["task"]))}
        self._held[said["load"]] = answerer_of(
            self._model,
            self._activations,
            self._spec,
            base64.b64decode(said["posterior"]),
            labels=said["labels"],
            window=said["window"],
        )
        while len(self._held) > _HELD:
            del self._held[next(iter(self._held))]
        return {"loaded": said["load"]}
