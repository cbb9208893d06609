"""Is everything in place? Every check of `priorflow doctor`; Kafka's are in `doctor_kafka`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from connectors.blobs import open_blobs
from priorflow import opening
from priorflow.config import Settings
from priorflow.doctor_kafka import cluster, java
from priorflow.exit_codes import ExitCode
from priorflow.findings import Check, Finding
from priorflow.opening import MLFLOW, NoLedger, absent_file, reading

_GIB: Final = 1 << 30
_TIGHT: Final = 5 * _GIB
_FULL: Final = _GIB // 2
_BEHIND: Final = 20  # snapshots that wait for the registry before somebody should look


def python(settings: Settings) -> Iterator[Finding]:
    """Look at the interpreter and the cores that ranks would share."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version} at {sys.executable}")
    wanted, cores = settings.learn.ranks * settings.learn.threads, os.cpu_count() or 1
    if settings.learn.workers and wanted > cores:
        remedy = "lower learn.workers or learn.threads"
        yield Finding("cores", "warn", f"{wanted} threads would share {cores} cores", remedy)


def disk(settings: Settings) -> Iterator[Finding]:
    """Look at the room that snapshots and logs have."""
    home = settings.home_folder
    place = next(p for p in (home, *home.parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{free / _GIB:.1f} GiB free for {home}"
    if not os.access(place, os.W_OK):
        yield Finding("disk", "fail", f"{place} cannot be written", "set home to another folder")
    elif free < _FULL:
        yield Finding("disk", "fail", found, "make room", ExitCode.UNREACHABLE)
    elif free < _TIGHT:
        yield Finding("disk", "warn", found, "a long run needs more; make room")
    else:
        yield Finding("disk", "ok", found)


def encoder(settings: Settings) -> Iterator[Finding]:
    """Look at the encoder's files, the warm start and the family's options, by using them."""
    from priorflow.learning import encoder_path, learning_settings  # noqa: PLC0415 - loads torch

    learning = learning_settings(settings)
    sha = learning["model"]["encoder"]
    yield Finding("encoder", "ok", f"{encoder_path(settings)} ({sha[:12]})")


def ledger(settings: Settings) -> Iterator[Finding]:
    """Read the chain's head with its blobs, and compare the settings it was begun with."""
    from priorflow.learning import differences, learning_settings  # noqa: PLC0415 - loads torch

    name = settings.chain.name
    try:
        with reading(settings) as (book, _):
            chain, head = book.chain(name), None
            if chain is not None:
                head = book.head(name)
            backlog = len(book.backlog(MLFLOW))
    except NoLedger:
        yield Finding("ledger", "ok", "none yet; the first run makes it")
        return
    if chain is None:
        yield Finding("ledger", "ok", f"no chain {name} yet; the first run begins it")
        return
    where = "empty" if head is None else f"at window {head.index} ({head.sha[:12]})"
    yield Finding("ledger", "ok", f"chain {name} is {where}")
    other = list(differences(learning_settings(settings), chain.settings))
    if other:
        remedy = "go on with the old settings, or name a new chain (chain.name)"
        yield Finding("settings", "fail", "; ".join(other), remedy)
    if backlog >= _BEHIND:
        remedy = "see that MLflow runs; nothing is lost meanwhile"
        yield Finding("outbox", "warn", f"{backlog} snapshots wait to be published", remedy)


def blobs(settings: Settings) -> Iterator[Finding]:
    """Write and read the empty blob."""
    place = settings.blobs_url
    if "://" not in place and not Path(place).is_dir():
        yield Finding("blobs", "ok", f"none yet; the first run makes {place}")
        return
    store = open_blobs(place)
    store.get(store.put(b""))
    yield Finding("blobs", "ok", f"{place} can be written and read")


def registry(settings: Settings) -> Iterator[Finding]:
    """Ask the registry for its aliases."""
    place = settings.shown()["mlflow"]["tracking_uri"] or settings.tracking_uri
    if not settings.mlflow.enabled:
        yield Finding("mlflow", "ok", "nothing is published (mlflow.enabled)")
    elif absent_file(settings.tracking_uri) is not None:
        yield Finding("mlflow", "ok", f"none yet; the first run makes {place}")
    else:
        store = opening.registry(settings)
        try:
            aliases = store.aliases()
        finally:
            store.close()
        named = ", ".join(f"{name} {version}" for name, version in sorted(aliases.items()))
        yield Finding("mlflow", "ok", f"{place} answers ({named or 'no alias yet'})")


CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("python", python),
    ("disk", disk),
    ("encoder", encoder),
    ("java", java),
    ("kafka", cluster),
    ("ledger", ledger),
    ("blobs", blobs),
    ("mlflow", registry),
)
