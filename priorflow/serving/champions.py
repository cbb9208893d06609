"""Who is to answer: by the decision log, else by the registry's alias, else the last that did here.

The log is the authority. Where it cannot be read, or has promoted nobody, the alias `champion` is believed
if its version verifies and belongs to this chain. The last version that answered here is kept in a folder, so
that a server can start while both are away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

from connectors.decision_log import champion
from connectors.manifest import read_manifest
from posterior.registry import Alias, Registry
from posterior.snapshot import Blobs, Ledger, LedgerCorrupt, Snapshot
from priorflow.case import newest_candidate
from priorflow.opening import MLFLOW
from trainers.abstention import Abstention

By = Literal["decision log", "alias", "last good", "setting"]
_FILES = ("manifest.json", "posterior.safetensors", "serving.json")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A snapshot that should answer; `history` is None where the ledger could not be asked."""

    snapshot: Snapshot
    posterior: Callable[[], bytes]
    by: By
    name: str | None
    history: Callable[[], Sequence[Snapshot]] | None = None
    rule: Abstention | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was read of a log up to its line `at`, of this hash ("" for none), and what follows from it."""

    at: int = 0
    hash: str = ""
    champion: str | None = None
    candidate: str | None = None


@final
class Log:
    """The decision log as a server follows it: verified whole at first, then from its last known line on.

    A log whose last known line is gone or another one, as of a ledger from a backup, is read whole again.
    """

    def __init__(self, ledger: Ledger, chain: str) -> None:
        self._ledger, self._chain = ledger, chain
        self._seen = _Seen()

    def champion(self) -> str | None:
        """Return who is in charge; None while nobody was promoted, or there is no such chain."""
        return self._read().champion

    def candidate(self) -> str | None:
        """Return whom the gates judged last, unless to put it back; None while they judged nobody."""
        return self._read().candidate

    def _read(self) -> _Seen:
        seen = self._seen
        lines = self._ledger.decisions(self._chain, since=seen.at)
        if seen.hash and (not lines or lines[0].hash != seen.hash):
            seen, lines = _Seen(), self._ledger.decisions(self._chain)
        if lines:
            self._seen = _Seen(
                at=lines[-1].seq,
                hash=lines[-1].hash,
                champion=champion(lines) or seen.champion,
                candidate=newest_candidate(lines) or seen.candidate,
            )
        else:
            self._seen = seen
        return self._seen


def by_decision(ledger: Ledger, blobs: Blobs, chain: str, sha: str | None) -> Wanted | None:
    """Return the snapshot that the decision log names; None for nobody."""
    if sha is None:
        return None
    found = ledger.snapshot(sha)
    if found is None:
        msg = f"chain {chain}: {sha} was set aside since it was decided on; promote or roll back"
        raise LedgerCorrupt(msg)
    snapshot = found[0]
    return Wanted(
        snapshot=snapshot,
        posterior=lambda: blobs.get(snapshot.posterior),
        by="decision log",
        name=ledger.reference(sha, MLFLOW),
        history=lambda: ledger.history(snapshot.chain),
    )


def by_alias(registry: Registry, chain: str, settings_sha: str, alias: Alias = "champion") -> Wanted | None:
    """Return what the registry's alias names, verified; None if there is none, or it is another chain's."""
    version = registry.aliases().get(alias)
    if version is None:
        return None
    snapshot, posterior = registry.fetch(version)
    if (snapshot.chain, snapshot.settings) != (chain, settings_sha):
        return None
    return Wanted(snapshot=snapshot, posterior=lambda: posterior, by="alias", name=version)


def by_version(registry: Registry, version: str) -> Wanted:
    """Return a version that somebody named, verified."""
    snapshot, posterior = registry.fetch(version)
    return Wanted(snapshot=snapshot, posterior=lambda: posterior, by="setting", name=version)


def by_folder(folder: Path, chain: str, settings_sha: str) -> Wanted | None:
    """Return the last version that answered here; None if there is none; LedgerCorrupt if it was altered."""
    manifest, posterior, serving = (folder / name for name in _FILES)
    if not serving.is_file():
        return None
    try:
        said: dict[str, Any] = json.loads(serving.read_text(encoding="utf-8"))
        snapshot = read_manifest(manifest.read_text(encoding="utf-8"), said["snapshot"])
        rule = None if said["rule"] is None else Abstention(**said["rule"])
    except (OSError, ValueError, KeyError, TypeError) as broken:
        msg = f"{folder} cannot be read: {broken!r}; remove it, it is made again"
        raise LedgerCorrupt(msg) from broken
    if (snapshot.chain, snapshot.settings) != (chain, settings_sha):
        return None
    return Wanted(
        snapshot=snapshot, posterior=posterior.read_bytes, by="last good", name=said["version"], rule=rule
    )


def keep(folder: Path, wanted: Wanted, posterior: bytes, rule: Abstention | None) -> None:
    """Keep a version that answers; the file that makes the others count comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {
        "snapshot": wanted.snapshot.sha,
        "version": wanted.name,
        "rule": None if rule is None else asdict(rule),
    }
    texts = (json.dumps(wanted.snapshot.manifest()).encode(), posterior, json.dumps(said).encode())
    (folder / _FILES[-1]).unlink(missing_ok=True)
    for name, data in zip(_FILES, texts, strict=True):
        draft = folder / f".{name}-{os.getpid()}"
        draft.write_bytes(data)
        draft.replace(folder / name)
