"""A small stream of mails as an archive, and settings to run it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.archive import ArchiveWriter
from connectors.codec import event_record, label_record
from connectors.memory import MemoryLog
from priorflow.config import Settings, load
from stream.record import Event, Label
from stream.source import Partition
from tests.app.encoders import REAL, small_encoder

EVENTS, LABELS = "priorflow.events", "priorflow.labels"
WORDS = {"linux": "kernel module will not boot", "money": "win cheap cash offer now"}


def small_stream(
    count: int = 120,
    *,
    altered: int | None = None,
    money_from: int = 0,
    words: Mapping[str, str] = WORDS,
) -> MemoryLog:
    """Return events on three partitions and late labels on two; `altered` changes one event's text.

    There is no money before the event `money_from`.
    """
    rng = random.Random(5)
    lanes: list[Partition] = [(EVENTS, p) for p in range(3)] + [(LABELS, p) for p in range(2)]
    log = MemoryLog(lanes)
    told: list[Label] = []
    for i in range(count):
        kind = rng.choice(sorted(words))
        kind = kind if i >= money_from else "linux"
        time_ms = 1_000_000_000_000 + 60_000 * i
        text = f"{words[kind]} number {i}" + (" now" if i == altered else "")
        value, headers = event_record(Event(event_id=f"m{i}", text=text, time_ms=time_ms), source="test")
        lane = (EVENTS, rng.randrange(3))
        log.append(lane, value, headers=headers)
        told.append(
            Label(event_id=f"m{i}", label=kind, time_ms=time_ms + int(rng.paretovariate(1.2) * 90_000))
        )
    for label in sorted(told, key=lambda one: one.time_ms):
        value, headers = label_record(label, source="test")
        log.append((LABELS, rng.randrange(2)), value, headers=headers)
    return log


def archived(log: MemoryLog, folder: Path, *, form: str = "parquet") -> Path:
    """Write a log as an archive."""
    writer = ArchiveWriter(folder, form=form)
    for lane in log.lanes.values():
        writer.add(lane)
    writer.flush()
    return folder


def small_settings(home: Path, archive: Path | None, /, **more: Any) -> Settings:
    """Return settings that learn the small stream in seconds, with the small encoder."""
    said: dict[str, Any] = {
        "home": str(home),
        "window.size": 30,
        "model.encoder": small_encoder(),
        "model.max_tokens": 16,
        "model.rank": 2,
        "learn.epochs": 1,
        "learn.draws": 2,
        "learn.beta_sample": 8,
        "mlflow.enabled": False,
        "gate.min_labels": 10,
        "gate.smoke": False,  # a process takes seconds to load torch, and says other milliseconds each time
        "gate.max_p99_ms": None,
        **({} if archive is None else {"source": f"archive:{archive}"}),
    }
    return load(None, overrides=said | more)


def real_settings(home: Path, archive: Path | None, /, **more: Any) -> Settings:
    """Return the same with the encoder that a chain has by default, where its features matter."""
    return small_settings(home, archive, **{"model.encoder": REAL, **more})
