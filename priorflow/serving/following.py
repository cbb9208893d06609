"""The champion of the chain that the settings name, on this machine: found, loaded, and followed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch

from posterior.snapshot import LedgerCorrupt, Snapshot
from priorflow.config import ConfigError, Settings
from priorflow.console import Console
from priorflow.learning import model_spec
from priorflow.serving.books import Books, serving_folder
from priorflow.serving.champions import Wanted, by_decision, by_folder, keep
from priorflow.serving.desk import Desk
from priorflow.serving.version import Version, ready, rule_of
from priorflow.serving.watcher import Standing, Watcher
from trainers.abstention import Abstention
from trainers.activations import Activations
from trainers.model import AdaptedModel


@final
class OnThisMachine:
    """The champion by the ledger, the registry and the folder that the settings name."""

    def __init__(self, settings: Settings, model: AdaptedModel) -> None:
        self._settings, self._model, self._activations = settings, model, Activations(model)
        self._books = Books(settings)

    def by_decision(self) -> Wanted | None:
        """Ask the decision log."""
        ledger, log = self._books.ledger()
        return by_decision(ledger, self._books.blobs, self._settings.chain.name, log.champion())

    def by_alias(self) -> Wanted | None:
        """Ask the registry, if snapshots are published at all."""
        return self._books.with_history(self._books.by_alias("champion"))

    def last_good(self) -> Wanted | None:
        """Look into the folder of this chain."""
        return by_folder(self._folder, self._settings.chain.name, self._books.settings_sha)

    def ready(self, wanted: Wanted, posterior: bytes) -> Version:
        """Restore the belief; ConfigError if it was learned with other settings than these."""
        snapshot = wanted.snapshot
        self._books.require_ours(snapshot)
        rule = rule_of(self._settings, wanted.history() if wanted.history else (), snapshot)
        if wanted.history is None:
            rule = self._kept_rule(snapshot, rule)
        return ready(
            self._settings,
            self._model,
            self._activations,
            snapshot,
            posterior,
            rule=rule,
            name=wanted.name,
            settled=wanted.history is not None,
        )

    def keep(self, wanted: Wanted, posterior: bytes, version: Version) -> None:
        """Keep it in the folder of this chain, unless it came from there, or what is there is worth more."""
        if wanted.by != "last good" and not self._worth_more(version):
            keep(self._folder, wanted, posterior, version.rule)

    def close(self) -> None:
        """Let go of the ledger."""
        self._books.close()

    def _kept_rule(self, snapshot: Snapshot, rule: Abstention | None) -> Abstention | None:
        """Return what was chosen for this very snapshot and risk while the ledger could be asked, if so."""
        kept = self._kept()
        if rule is None or kept is None or kept.rule is None or kept.snapshot.sha != snapshot.sha:
            return rule
        return kept.rule if (kept.rule.risk, kept.rule.alpha) == (rule.risk, rule.alpha) else rule

    def _worth_more(self, version: Version) -> bool:
        """Tell whether what is kept has a threshold that would be lost for one not chosen by the ledger."""
        kept = None if version.settled else self._kept()
        if kept is None or kept.rule is None or not kept.rule.events:
            return False
        return version.provisional or kept.snapshot.sha == version.snapshot.sha

    def _kept(self) -> Wanted | None:
        try:
            return self.last_good()
        except LedgerCorrupt:  # told where it is to answer; here it is as good as none
            return None

    @property
    def _folder(self) -> Path:
        return serving_folder(self._settings)


@contextmanager
def following(
    settings: Settings, console: Console, *, most: int, patience_s: float
) -> Iterator[tuple[Desk, Watcher]]:
    """Load the model and the champion and follow it while the context is open.

    At most `most` texts may wait, and none that would have to for longer than `patience_s`.
    """
    if settings.model.objective == "tokens":
        msg = "model.objective is tokens: such a model gives no class, so there is nothing to answer"
        raise ConfigError(msg)
    torch.set_num_threads(settings.learn.threads)
    with console.progress("loading the model"):
        places = OnThisMachine(settings, AdaptedModel(model_spec(settings)))
    desk = Desk(most=most, patience_s=patience_s)
    watcher = Watcher(desk, places, poll_s=settings.serve.poll / 1000, tell=lambda s: _tell(console, s, desk))
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
