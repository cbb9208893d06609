"""Where a server looks up who is to answer: the ledger and the registry that the settings name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, final

from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from posterior.registry import Alias, Registry, RegistryError
from posterior.snapshot import LedgerError, LedgerUnavailable, Snapshot
from priorflow.config import ConfigError, Settings
from priorflow.learning import learning_settings
from priorflow.opening import absent_file, registry
from priorflow.serving.champions import Log, Wanted, by_alias, by_version
from stream.plan import sha256_json

_ASKED_S: Final = 5.0  # the registry is slow to ask, and asked only where the log says nothing


@final
class Books:
    """Opened once they are there, and read only; for one thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings_sha = sha256_json(learning_settings(settings))
        self.blobs = open_blobs(settings.blobs_url)
        self._settings = settings
        self._opened: tuple[SqlLedger, Log] | None = None
        self._registry: Registry | None = None
        self._told: tuple[float, Wanted | RegistryError | None] = (-math.inf, None)

    def ledger(self) -> tuple[SqlLedger, Log]:
        """Return the ledger and the chain's decision log; LedgerError while there is none that can be read.

        It is never migrated from here: servers of two releases may be up at once.
        """
        if self._opened is None:
            url = self._settings.ledger_url
            file = absent_file(url)
            if file is not None:
                msg = f"there is no ledger at {file} yet; `priorflow run` makes it"
                raise LedgerUnavailable(msg)
            ledger = open_ledger(url, self.blobs, read_only=True)
            self._opened = ledger, Log(ledger, self._settings.chain.name)
        return self._opened

    def by_alias(self, alias: Alias) -> Wanted | None:
        """Return what an alias names, if snapshots are published; RegistryError if it cannot be had."""
        chain, settings = self._settings.chain.name, self.settings_sha
        return self._now_and_then(lambda registry: by_alias(registry, chain, settings, alias))

    def by_version(self, number: int) -> Wanted | None:
        """Return a version by its number, if there are any; RegistryError if it cannot be had."""
        return self._now_and_then(lambda registry: by_version(registry, str(number)))

    def with_history(self, named: Wanted | None) -> Wanted | None:
        """Add what the ledger knows of a version that the registry named: nothing while it is away."""
        if named is None:
            return None
        try:
            ledger, _ = self.ledger()
            known = ledger.snapshot(named.snapshot.sha)
        except LedgerError:
            known = None
        history = None if known is None else partial(ledger.history, named.snapshot.chain)
        return replace(named, history=history)

    def require_ours(self, snapshot: Snapshot) -> None:
        """Raise ConfigError for a snapshot of another chain, or learned with other settings than these."""
        if snapshot.chain != self._settings.chain.name:
            msg = f"snapshot {snapshot.sha[:12]} is of chain {snapshot.chain!r}; name a version of this one"
            raise ConfigError(msg)
        if snapshot.settings != self.settings_sha:
            msg = (
                f"snapshot {snapshot.sha[:12]} was learned with other settings than this server has; give it "
                "the configuration of the run"
            )
            raise ConfigError(msg)

    def close(self) -> None:
        """Let go of the ledger."""
        if self._opened is not None:
            self._opened[0].close()

    def _now_and_then(self, ask: Callable[[Registry], Wanted | None]) -> Wanted | None:
        """Ask the registry what it is always asked here, unless it has been of late."""
        if not self._settings.mlflow.enabled or absent_file(self._settings.tracking_uri) is not None:
            return None
        asked, found = self._told
        if time.monotonic() - asked > _ASKED_S:
            self._registry = self._registry or registry(self._settings)
            try:
                found = ask(self._registry)
            except RegistryError as failed:
                found = failed
            self._told = time.monotonic(), found
        if isinstance(found, RegistryError):
            raise found.with_traceback(None)
        return found


def serving_folder(settings: Settings, chain: str | None = None) -> Path:
    """Return where a server of a chain (as configured) keeps what is its own."""
    return settings.home_folder / "serving" / (chain or settings.chain.name)
