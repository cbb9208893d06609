"""Somebody to ask who needs no model: small, real, and as slow or as wrong as a test wants it."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

from posterior.family import ONE_TASK
from posterior.snapshot import Snapshot
from priorflow.serving.version import Version
from trainers.abstention import Abstention
from trainers.answer import Answer

RULE = Abstention(risk=0.1, alpha=0.05, at=0.7, events=100, answered=60, wrong=2)


@dataclass
class Clerk:
    """Says "long" of texts that have many letters; waits for `gate` before every answer.

    It cannot answer what holds `poison`.
    """

    name: str
    gate: threading.Event | None = None
    fails: bool = False
    poison: str | None = None
    pause_s: float = 0.0
    asked: list[str] = field(default_factory=list)

    def answer(self, text: str, task: str = ONE_TASK) -> Answer:
        assert task in {ONE_TASK, "other task"}
        if self.fails or (self.poison is not None and self.poison in text):
            msg = f"{self.name} cannot"
            raise RuntimeError(msg)
        if self.gate is not None:
            assert self.gate.wait(10)
        time.sleep(self.pause_s)
        self.asked.append(text)
        p = 0.1 + 0.8 / (1 + math.exp(10 - len(text)))
        label = "long" if p >= 0.45 else "short"
        return Answer(
            label=label,
            probabilities={"long": p, "short": 0.9 - p},
            novelty=0.1,
            interval=(0.2, 0.8),
            total=1.0,
            aleatoric=0.75,
            epistemic=0.25,
        )


def snapshot(index: int, *, chain: str = "main", settings: str = "5" * 64, posterior: str = "") -> Snapshot:
    return Snapshot(
        chain=chain,
        seq=index,
        index=index,
        kind="learned",
        parent=None,
        plan=None,
        posterior=posterior or f"{index:064x}",
        stream_state="0" * 64,
        settings=settings,
        labels=("long", "short"),
        spans_before=(),
        spans=(),
        counts={},
        report={},
    )


def version(clerk: Clerk, index: int = 1) -> Version:
    return Version(snapshot=snapshot(index), answerer=clerk, rule=RULE, name=str(index))
