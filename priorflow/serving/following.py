"""The champion of the chain that the settings name, on this machine: found, loaded, and followed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import torch

from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from posterior.registry import Registry
from posterior.snapshot import LedgerUnavailable
from priorflow.config import ConfigError, Settings
from priorflow.console import Console
from priorflow.learning import learning_settings, model_spec
from priorflow.opening import absent_file, registry
from priorflow.serving.champions import Log, Wanted, by_alias, by_decision, by_folder, keep
from priorflow.serving.desk import Desk
from priorflow.serving.version import Version, ready, rule_of
from priorflow.serving.watcher import Standing, Watcher
from stream.plan import sha256_json
from trainers.activations import Activations
from trainers.model import AdaptedModel

_ALIAS_S: Final = 5.0  # the registry is slow to ask, and asked only where the log says nothing


@final
class OnThisMachine:
    """The ledger, registry and folder that the settings name; the ledger is opened once it is there."""

    def __init__(self, settings: Settings, model: AdaptedModel) -> None:
        self._settings, self._model, self._activations = settings, model, Activations(model)
        self._sha = sha256_json(learning_settings(settings))
        self._blobs = open_blobs(settings.blobs_url)
        self._ledger: SqlLedger | None = None
        self._log: Log | None = None
        self._registry: Registry | None = None
        self._alias: tuple[float, Wanted | None] = (-math.inf, None)

    def by_decision(self) -> Wanted | None:
        """Ask the decision log."""
        if self._ledger is None:
            url = self._settings.ledger_url
            file = absent_file(url)
            if file is not None:
                msg = f"there is no ledger at {file} yet; `priorflow run` makes it"
                raise LedgerUnavailable(msg)
            self._ledger = open_ledger(url, self._blobs)
            self._log = Log(self._ledger, self._settings.chain.name)
        assert self._log is not None
        return by_decision(self._ledger, self._blobs, self._settings.chain.name, self._log.champion())

    def by_alias(self) -> Wanted | None:
        """Ask the registry, if snapshots are published at all."""
        if not self._settings.mlflow.enabled or absent_file(self._settings.tracking_uri) is not None:
            return None
        asked, found = self._alias
        if time.monotonic() - asked > _ALIAS_S:
            self._registry = self._registry or registry(self._settings)
            found = by_alias(self._registry, self._settings.chain.name, self._sha)
            self._alias = time.monotonic(), found
        return found

    def last_good(self) -> Wanted | None:
        """Look into the folder of this chain."""
        return by_folder(self._folder, self._settings.chain.name, self._sha)

    def ready(self, wanted: Wanted, posterior: bytes) -> Version:
        """Restore the belief; ConfigError if it was learned with other settings than these."""
        snapshot = wanted.snapshot
        if snapshot.settings != self._sha:
            msg = (
                f"snapshot {snapshot.sha[:12]} was learned with other settings than this server has; give it "
                "the configuration of the run"
            )
            raise ConfigError(msg)
        rule = rule_of(self._settings, wanted.history() if wanted.history else (), snapshot.index)
        kept = wanted.rule
        if rule is not None and kept is not None and (kept.risk, kept.alpha) == (rule.risk, rule.alpha):
            rule = kept  # chosen while the ledger could be asked, and for the same risk
        return ready(
            self._settings,
            self._model,
            self._activations,
            snapshot,
            posterior,
            rule=rule,
            name=wanted.name,
        )

    def keep(self, wanted: Wanted, posterior: bytes, version: Version) -> None:
        """Keep it in the folder of this chain, unless it came from there."""
        if wanted.by != "last good":
            keep(self._folder, wanted, posterior, version.rule)

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    @property
    def _folder(self) -> Path:
        return self._settings.home_folder / "serving" / self._settings.chain.name


@contextmanager
def following(settings: Settings, console: Console, *, most: int) -> Iterator[tuple[Desk, Watcher]]:
    """Load the model and the champion and follow it while the context is open; `most` texts may wait."""
    if settings.model.objective == "tokens":
        msg = "model.objective is tokens: such a model gives no class, so there is nothing to answer"
        raise ConfigError(msg)
    torch.set_num_threads(settings.learn.threads)
    with console.progress("loading the model"):
        places = OnThisMachine(settings, AdaptedModel(model_spec(settings)))
    serve = settings.serve
    desk = Desk(most=most, patience_s=serve.max_wait / 1000)
    watcher = Watcher(desk, places, poll_s=serve.poll / 1000, tell=lambda s: _tell(console, s, desk))
    desk.start()
    try:
        with console.progress("loading the champion"):
            watcher.start()
        yield desk, watcher
    finally:
        watcher.stop()
        desk.stop()
        places.close()


def _tell(console: Console, standing: Standing, desk: Desk) -> None:
    version = desk.version
    facts = {
        "by": standing.by,
        "snapshot": None if version is None else version.snapshot.sha,
        "version": None if version is None else version.name,
        "trouble": standing.trouble,
    }
    if standing.trouble is not None:
        console.warn(standing.trouble, event="champion", **facts)
    elif version is not None:
        console.say(f"{version.snapshot.sha[:12]} answers, by the {standing.by}", event="champion", **facts)
