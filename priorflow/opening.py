"""Open what the settings name: ledger, blobs, registry. The Kafka side is in `priorflow.cluster`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from connectors.mlflow_registry import Dressing, MlflowRegistry, bare
from posterior.snapshot import Blobs, LedgerError, Snapshot
from priorflow.config import Settings

MLFLOW: Final = "mlflow"  # the outbox target of the registry
_SQLITE: Final = "sqlite:///"


class NoLedger(LedgerError):
    """There is nothing to read yet."""


def absent_file(url: str) -> Path | None:
    """Return the SQLite file an address names, if it is not there; None for anything else."""
    file = Path(url.removeprefix(_SQLITE))
    return file if url.startswith(_SQLITE) and not file.is_file() else None


@contextmanager
def reading(
    settings: Settings, *, read_only: bool = False, migrates: bool = True
) -> Iterator[tuple[SqlLedger, Blobs]]:
    """Open an existing ledger and its blobs; NoLedger rather than an empty file where none was.

    An older one is migrated, unless it is only read or not to be: then LedgerError says who does that.
    """
    url = settings.ledger_url
    file = absent_file(url)
    if file is not None:
        msg = (
            f"there is no ledger at {file}; `priorflow run` or `priorflow "
            "demo` makes one, and --set home=FOLDER names another place"
        )
        raise NoLedger(msg)
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(url, blobs, read_only=read_only, migrates=migrates)
    try:
        yield ledger, blobs
    finally:
        ledger.close()


def registry(settings: Settings, dressing: Dressing = bare) -> MlflowRegistry:
    """Return the registry; nothing is connected, or imported, before it is used.

    Whoever publishes says by `dressing` what lies beside a version's own files.
    """
    mlflow = settings.mlflow
    return MlflowRegistry(
        settings.tracking_uri,
        mlflow.registered_model,
        experiment=mlflow.experiment,
        artifacts=mlflow.artifacts,
        dressing=dressing,
    )


def require_snapshot(ledger: SqlLedger, sha: str) -> Snapshot:
    """Return a snapshot by sha or prefix; LedgerError says how to find one."""
    found = ledger.snapshot(sha)
    if found is None:
        msg = f"no snapshot begins with {sha!r}; `priorflow snapshots ls` lists them"
        raise LedgerError(msg)
    return found[0]


def require_history(ledger: SqlLedger, chain: str) -> tuple[Snapshot, ...]:
    """Return a chain from root to head; LedgerError lists the chains there are."""
    if ledger.chain(chain) is None:
        names = ", ".join(known.name for known in ledger.chains()) or "none yet"
        msg = f"there is no chain {chain!r} in this ledger; there are: {names}"
        raise LedgerError(msg)
    return tuple(ledger.history(chain))
