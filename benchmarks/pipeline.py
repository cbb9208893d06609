"""What the whole pipeline costs beyond learning: Kafka, Ray, ledger and MLflow around the bare update.

    .venv/bin/python benchmarks/pipeline.py [--quick] [--json]

Throughput: `priorflow run` with one Ray worker, from the root's commit to the last window's, and then the
same orders carried out in this process from memory, in turn. Every round has texts of its own, so that
both compute every activation. Latency: one long run over small windows, from what was told last before a
window closed to its commit, less what the worker says predicting and training took; and from the commit
to the creation of the MLflow version.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import paired_ratio, quantile
from benchmarks.result import Result, Row, arguments, progress, publish
from benchmarks.streams import as_cloudevents, broker, fresh_folder, mixed, produce, topics
from benchmarks.versions import created
from connectors.kafka_client import KafkaClient
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.learning import model_spec
from priorflow.run import execute, open_updater
from trainers.model import AdaptedModel
from trainers.window import Local, Order, Outcome, Updater

PAIRS, WINDOWS, SIZE = 10, 2, 500  # rounds, and windows of the default size in each
SMALL_WINDOWS, SMALL_SIZE = 210, 32
QUICK: Final = (2, 2, 60, 8, 20)
LEARNING: Final = {"learn.workers": 1, "learn.threads": 1, "window.kind": "count"}


@final
@dataclass
class Recorder:
    """Passes orders on and keeps them, so that the same can be carried out again."""

    inner: Updater
    orders: list[Order] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def carry_out(self, order: Order) -> Outcome:
        """Keep the order and its outcome, unless it only asks for the root."""
        outcome = self.inner.carry_out(order)
        if order.parent:
            self.orders.append(order)
            self.outcomes.append(outcome)
        return outcome

    def close(self) -> None:
        """Leave the inner one open: other rounds need it."""


@final
@dataclass
class Marks:
    """When things happened in a run, by its own steps and by what it told."""

    root_s: float | None = None
    end_s: float = 0.0
    told_s: float = 0.0
    committed_s: float = 0.0
    committed_ms: float = 0.0
    beyond_s: list[float] = field(default_factory=list)
    commits_ms: dict[str, float] = field(default_factory=dict)

    def step(self, name: str) -> None:
        """Note a commit; the first one is the root's."""
        if name == "after-ledger-commit":
            self.committed_s, self.committed_ms = time.perf_counter(), time.time() * 1000
            self.root_s = self.committed_s if self.root_s is None else self.root_s

    def watch(self, what: str, **facts: Any) -> None:
        """Note the last moment at which a window was certainly still open, and what its commit cost."""
        if what == "committed" and facts["members"]:
            spent = self.committed_s - self.told_s
            self.beyond_s.append(spent - sum(facts["seconds"].values()))
            self.commits_ms[facts["snapshot"].sha] = self.committed_ms
        if what in {"read", "committed"}:
            self.told_s = self.end_s = time.perf_counter()


def settings_for(folder: Path, client: KafkaClient, name: str, size: int) -> Settings:
    """Return the default settings on a stream, chain and model of its own."""
    said: dict[str, Any] = {
        "home": str(folder / "home"),
        "chain.name": name,
        "kafka.bootstrap": client.bootstrap,
        "mlflow.registered_model": name,
        "window.size": size,
        **{f"kafka.topics.{k}": v for k, v in topics(name).model_dump().items()},
        **LEARNING,
    }
    return load(None, overrides=said)


def run(settings: Settings, updater: Updater, windows: int) -> Marks:
    """Run the whole pipeline over so many windows."""
    marks = Marks()
    outcome = execute(
        settings,
        until_end=True,
        max_windows=windows,
        console=Silent(),
        watch=marks.watch,
        crash=marks.step,
        updater=updater,
    )
    assert outcome.published, "MLflow took every version"
    assert len(marks.commits_ms) == windows, "the stream is long enough"
    return marks


def throughput(
    folder: Path, client: KafkaClient, ray: Updater, pairs: int, windows: int, size: int
) -> tuple[Row, dict[str, Any]]:
    """Compare the pipeline with the bare loop, a pair a round; the first round warms up."""
    whole, bare = list[float](), list[float]()
    for i in range(pairs + 1):
        name = f"pair-{i}"
        settings = settings_for(folder, client, name, size)
        produce(client, as_cloudevents(mixed(_enough(windows, size), seed=i), topics(name)), topics(name))
        recorder = Recorder(ray)
        marks = run(settings, recorder, windows)
        assert marks.root_s is not None
        whole.append(marks.end_s - marks.root_s)
        bare.append(again(settings, recorder.orders, recorder.outcomes))
        progress(f"{name}: pipeline {whole[-1]:.2f} s, bare {bare[-1]:.2f} s")
    row = Row(
        what="throughput of the pipeline (Kafka, one Ray worker, ledger, MLflow), to the bare in-memory loop",
        bound="at least",
        target=0.95,
        measured=paired_ratio(bare[1:], whole[1:]),
        unit="ratio",
        runs=pairs,
    )
    middle = pairs // 2
    how = {"windows a run": windows, "mails a window": size}
    return row, how | {"median seconds": [sorted(whole[1:])[middle], sorted(bare[1:])[middle]]}


def again(settings: Settings, orders: Sequence[Order], outcomes: Sequence[Outcome]) -> float:
    """Carry the same orders out in memory; return the seconds they took."""
    local = Local(AdaptedModel(model_spec(settings)))
    begun = time.perf_counter()
    found = [local.carry_out(order) for order in orders]
    seconds = time.perf_counter() - begun
    for mine, theirs in zip(found, outcomes, strict=True):
        assert mine.steps == theirs.steps
        assert all(mine.tensors[k].equal(theirs.tensors[k]) for k in theirs.tensors), "the same bits"
    return seconds


def latency(
    folder: Path, client: KafkaClient, ray: Updater, windows: int, size: int
) -> tuple[list[Row], dict[str, Any]]:
    """Run over many small windows; say what a commit and a version cost."""
    name = "small"
    settings = settings_for(folder, client, name, size)
    chosen = mixed(_enough(windows, size), seed=99)
    produce(client, as_cloudevents(chosen, topics(name)), topics(name))
    progress(f"{windows} windows of {size} mails")
    marks = run(settings, ray, windows)
    at = created(settings)
    versions = [(at[sha] - committed) / 1000 for sha, committed in marks.commits_ms.items()]
    rows = [
        _p95("window closed to snapshot committed, beyond predicting and training, p95", 0.3, marks.beyond_s),
        _p95("snapshot committed to MLflow version, p95", 1.0, versions),
    ]
    medians = {"commit": quantile(marks.beyond_s, 0.5).value, "version": quantile(versions, 0.5).value}
    return rows, {"windows": windows, "mails a window": size, "median seconds": medians}


def _p95(what: str, target: float, seconds: Sequence[float]) -> Row:
    estimate = quantile(seconds, 0.95)
    return Row(what=what, bound="at most", target=target, measured=estimate, unit="s", runs=len(seconds))


def _enough(windows: int, size: int) -> int:
    """Return how many mails surely fill the windows: some labels never come, some come late."""
    return int(windows * size * 1.1) + 400


def measure(folder: Path, client: KafkaClient, *, quick: bool) -> tuple[list[Row], Mapping[str, Any]]:
    """Start Ray once and measure both."""
    pairs, windows, size, small_windows, small_size = (
        QUICK if quick else (PAIRS, WINDOWS, SIZE, SMALL_WINDOWS, SMALL_SIZE)
    )
    ray = open_updater(settings_for(folder, client, "ray", size))
    try:
        ratio, how = throughput(folder, client, ray, pairs, windows, size)
        rows, small = latency(folder, client, ray, small_windows, small_size)
    finally:
        ray.close()
    return [ratio, *rows], {"throughput": how, "latency": small, "settings": dict(LEARNING)}


def main() -> None:
    """Measure and publish."""
    asked = arguments(__doc__)
    folder = fresh_folder("pipeline")
    with broker(folder) as client:
        rows, how = measure(folder, client, quick=asked.quick)
    publish(Result(name="pipeline", rows=rows, how=how), asked)


if __name__ == "__main__":
    main()
