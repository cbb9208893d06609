"""The port to a model registry: where snapshots become versions that others can find and serve.

A registry is a projection. The ledger says which snapshots exist and its decision log who is champion;
versions and aliases can be written again from those at any time.

    RegistryError
    ├── RegistryUnavailable   retry: the registry cannot be reached just now
    └── RegistryRefused       skip: it does not take, or no longer holds, this snapshot as it is
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from posterior.snapshot import Circumstance, Snapshot

Alias = Literal["candidate", "champion", "previous"]


class RegistryError(Exception):
    """Something about the registry; the message says which snapshot or version, and what to do."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached; the same call may succeed later."""


class RegistryRefused(RegistryError):
    """The registry answered, and the answer will not change by asking again."""


class Registry(Protocol):
    """Numbered versions of one model, found by snapshot sha, and three names for them."""

    def publish(self, snapshot: Snapshot, circumstance: Circumstance, posterior: bytes) -> str:
        """Make the snapshot a version and return its number; the same again returns the same.

        Never given stream state: that holds text. Safe to repeat after dying anywhere inside.
        """
        ...

    def version_of(self, sha: str) -> str | None:
        """Return the version of a snapshot, or None when it was never published."""
        ...

    def fetch(self, version: str) -> tuple[Snapshot, bytes]:
        """Return a version's snapshot and posterior, both checked against their shas."""
        ...

    def assert_aliases(self, aliases: Mapping[Alias, str | None]) -> None:
        """Point the named aliases at these versions (None: nowhere) and read them back."""
        ...

    def aliases(self) -> Mapping[str, str]:
        """Return every alias and the version it points at."""
        ...

    def sweep(self, before_ms: int) -> int:
        """Mark what a dead publisher left half-made before `before_ms`; return how many."""
        ...

    def close(self) -> None:
        """Let go of the registry."""
        ...
