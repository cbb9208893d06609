"""`priorflow run`: put the parts together, own the chain, and go round the loop.

lease ──> source, intake, updater, ledger, blobs ──> loop ──> outbox thread ──> registry
  └── a thread renews it; when it is lost the loop stops, and every write it still tries is refused
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from connectors.archive import ArchiveSource, ArchiveWriter
from connectors.blobs import open_blobs
from connectors.codec import decoder
from connectors.crash import Crash, live
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import Chain, Circumstance, Fenced, Snapshot
from priorflow.attending import Attendance, gatekeeper, open_publisher
from priorflow.cluster import client
from priorflow.config import ConfigError, Settings
from priorflow.console import Console
from priorflow.garbage import seldom_collected
from priorflow.judging import scorer
from priorflow.learning import differences, family_spec, learn_spec, learning_settings, model_spec
from priorflow.opening import MLFLOW
from priorflow.rules import codec_rules, intake_rules
from priorflow.telling import ONCE_S, open_herald
from priorflow.tenure import owned, stop_signals
from stream.plan import Setaside
from stream.record import RawRecord
from stream.source import Source
from trainers.loop import run
from trainers.model import AdaptedModel
from trainers.parts import Parts, Rules, Watcher
from trainers.window import Local, Updater

SOURCE_NAME: Final = "priorflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """Where a run ended; `stopped`: because somebody asked it to, not at the end of the log."""

    head: Snapshot
    published: bool
    stopped: bool


def runtime(settings: Settings) -> dict[str, str | int]:
    """Return what bits depend on beside the settings; recorded in every plan."""
    return {
        "world": settings.learn.ranks,
        "threads": settings.learn.threads,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def chain_of(settings: Settings) -> Chain:
    """Return the chain these settings describe."""
    return Chain(name=settings.chain.name, seed=settings.chain.seed, settings=learning_settings(settings))


def rules_of(settings: Settings, chain: Chain) -> Rules:
    """Return what decides the chain."""
    return Rules(
        chain=chain,
        intake=intake_rules(settings),
        family=family_spec(settings),
        learn=learn_spec(settings),
        runtime=runtime(settings),
        idle_ms=settings.records.idle,
        publish=(MLFLOW,) if settings.mlflow.enabled else (),
        publish_every=settings.mlflow.every,
    )


def circumstance(seconds: Mapping[str, float]) -> Circumstance:
    """Return what is true of this run but not of the belief."""
    return Circumstance(
        at_ms=time.time_ns() // 1_000_000,
        host=socket.gethostname(),
        code_version=version("priorflow"),
        seconds=dict(seconds),
    )


def open_updater(settings: Settings) -> Updater:
    """Return whoever learns: this process, or Ray workers."""
    torch.set_num_threads(settings.learn.threads)
    if settings.learn.workers == 0:
        return Local(AdaptedModel(model_spec(settings)), world=settings.learn.world)
    # Ray takes seconds to import and few commands need it.
    from trainers.ray_update import RaySpec, RayUpdater  # noqa: PLC0415

    spec = RaySpec(
        workers=settings.learn.workers,
        threads=settings.learn.threads,
        storage=settings.home_folder / "ray",
    )
    return RayUpdater(model_spec(settings), spec)


def open_source(settings: Settings) -> Source:
    """Return the log that the settings name."""
    if settings.archive_path is not None:
        return ArchiveSource(settings.archive_path)
    topics = settings.kafka.topics
    names = tuple(dict.fromkeys((topics.events, topics.labels)))
    group = f"priorflow-{settings.chain.name}"
    return KafkaSource(client(settings), KafkaSourceRules(topics=names, group=group))


def open_aside(settings: Settings, stack: ExitStack) -> Callable[[Sequence[Setaside]], None]:
    """Return where set-aside records go: the dead-letter and late topics.

    A run over an archive writes none: what is in it was set aside when it was first read.
    """
    if settings.archive_path is not None:
        return lambda _: None
    topics = settings.kafka.topics
    sink = KafkaSink(client(settings), dead_letters=topics.dead_letters, late=topics.late)
    stack.callback(sink.close)
    return sink.set_aside


def _keeper(settings: Settings) -> tuple[Callable[[Sequence[RawRecord]], None], Callable[[], None]]:
    if settings.archive is None:
        return lambda _: None, lambda: None
    form = "jsonl" if settings.archive.suffix == ".jsonl" else "parquet"
    writer = ArchiveWriter(Path(settings.archive), form=form)
    return writer.add, writer.flush


def _after(
    flush: Callable[[], None], aside: Callable[[Sequence[Setaside]], None]
) -> Callable[[Sequence[Setaside]], None]:
    """Return `aside`, done only once the archive is durable.

    It is the last step before a commit; what lies before committed positions is never read again, so
    an archive flushed later would have a hole wherever a run died in between.
    """

    def both(rows: Sequence[Setaside]) -> None:
        flush()
        aside(rows)

    return both


def require_same_settings(ledger: SqlLedger, chain: Chain) -> None:
    """Create the chain, or say which settings differ from those it was begun with."""
    known = ledger.chain(chain.name)
    if known is not None:
        found = list(differences(chain.settings, known.settings))
        if found:
            listed = "\n  ".join(found)
            msg = (
                f"chain {chain.name!r} was begun with other settings:\n  {listed}\n"
                f"Put them back, name another chain (chain.name), or ask what they would have given: "
                f"priorflow replay --into NEW"
            )
            raise ConfigError(msg)
    ledger.create(chain if known is None else replace(chain, origin=known.origin))


def execute(
    settings: Settings,
    *,
    until_end: bool = False,
    max_windows: int | None = None,
    takeover: bool = False,
    console: Console,
    watch: Watcher | None = None,
    crash: Crash = live,
    updater: Updater | None = None,
) -> RunOutcome:
    """Run until stopped, the end of the log or `max_windows`; see the exit statuses for what may fail."""
    with ExitStack() as stack:
        stack.enter_context(seldom_collected())
        blobs = open_blobs(settings.blobs_url, crash=crash)
        settings.home_folder.mkdir(parents=True, exist_ok=True)
        ledger = open_ledger(settings.ledger_url, blobs, crash=crash)
        stack.callback(ledger.close)
        chain = chain_of(settings)
        require_same_settings(ledger, chain)
        fence, lost = stack.enter_context(owned(ledger, settings, takeover=takeover))
        source = open_source(settings)
        stack.callback(source.close)
        keep, flush = _keeper(settings)
        stack.callback(flush)
        aside = _after(flush, open_aside(settings, stack))
        if updater is None:
            with console.progress("starting the learner"):
                updater = open_updater(settings)
            stack.callback(updater.close)
        herald = open_herald(settings, ledger, console, stack)
        publisher = open_publisher(settings, ledger, blobs, console, stack)
        rules = replace(rules_of(settings, chain), until_end=until_end, max_windows=max_windows)
        gate = gatekeeper(settings, ledger, blobs, updater, rules)
        attendance = Attendance(console=console, publisher=publisher, gate=gate, herald=herald, also=watch)
        stop = stack.enter_context(stop_signals())
        parts = Parts(
            source=source,
            decode=decoder(codec_rules(settings)),
            ledger=ledger,
            blobs=blobs,
            updater=updater,
            score=scorer(settings),
            aside=aside,
            keep=keep,
            circumstance=circumstance,
            now_ms=lambda: time.monotonic_ns() // 1_000_000,
            watch=attendance,
            crash=crash,
            stopping=lambda: stop.is_set() or lost.is_set(),
        )
        attendance.catch_up(parts, rules)
        head = run(parts, rules, fence)
        if lost.is_set():
            msg = f"chain {chain.name!r} was taken over by another process; this one has stopped"
            raise Fenced(msg)
        published = True
        if publisher is not None:
            with console.progress("publishing what is left"):
                published = publisher.flush(60)
        if not published:
            console.warn("MLflow is behind; the next run publishes what is left", event="backlog")
        if herald is not None and not herald.flush(ONCE_S):
            console.warn("the webhook is behind; the next run tells what is left", event="backlog")
        return RunOutcome(head=head, published=published, stopped=stop.is_set())


def machine() -> dict[str, Any]:
    """Describe the machine for records of measurements."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
