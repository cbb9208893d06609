"""A registry in memory: a real small one, held to the same contract as MLflow's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from threading import RLock
from typing import final

from posterior.registry import Alias, RegistryRefused
from posterior.snapshot import Circumstance, Snapshot


@final
class MemoryRegistry:
    """Versions in a list."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._versions: list[tuple[Snapshot, bytes]] = []
        self._aliases: dict[str, str] = {}

    def publish(self, snapshot: Snapshot, circumstance: Circumstance, posterior: bytes) -> str:  # noqa: ARG002  nothing here shows it
        """Make the snapshot a version; the same again returns the same."""
        if hashlib.sha256(posterior).hexdigest() != snapshot.posterior:
            message = f"snapshot {snapshot.sha}: these are not its posterior's bytes"
            raise RegistryRefused(message)
        with self._lock:
            known = self.version_of(snapshot.sha)
            if known is None:
                self._versions.append((snapshot, posterior))
                known = str(len(self._versions))
        return known

    def version_of(self, sha: str) -> str | None:
        """Return the version of a snapshot, or None when it was never published."""
        shas = [snapshot.sha for snapshot, _ in self._versions]
        return str(shas.index(sha) + 1) if sha in shas else None

    def fetch(self, version: str) -> tuple[Snapshot, bytes]:
        """Return a version's snapshot and posterior."""
        if not version.isdigit() or not 0 < int(version) <= len(self._versions):
            message = f"there is no version {version}"
            raise RegistryRefused(message)
        return self._versions[int(version) - 1]

    def assert_aliases(self, aliases: Mapping[Alias, str | None]) -> None:
        """Point the named aliases at these versions (None: nowhere)."""
        for alias, version in aliases.items():
            if version is None:
                self._aliases.pop(alias, None)
            else:
                self.fetch(version)
                self._aliases[alias] = version

    def aliases(self) -> Mapping[str, str]:
        """Return every alias and the version it points at."""
        return dict(self._aliases)

    def sweep(self, before_ms: int) -> int:  # noqa: ARG002  nothing is ever half-made here
        """Find nothing."""
        return 0

    def close(self) -> None:
        """Keep everything: memory has nothing to let go of."""
