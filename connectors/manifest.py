"""A snapshot read back from its manifest: the form in which ledgers and registries keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from posterior.snapshot import FORMAT, LedgerCorrupt, Snapshot, Span

TUPLES = ("labels", "rejected")
SPANS = ("spans_before", "spans")


def read_manifest(text: str, sha: str) -> Snapshot:
    """Rebuild the snapshot called `sha`; raises LedgerCorrupt if the text is not that snapshot."""
    try:
        snapshot = _snapshot(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as broken:
        message = f"the manifest of snapshot {sha} cannot be read: {broken}"
        raise LedgerCorrupt(message) from broken
    if snapshot.sha != sha:
        message = f"the manifest of snapshot {sha} was altered: it now hashes to {snapshot.sha}"
        raise LedgerCorrupt(message)
    return snapshot


def _snapshot(fields: Mapping[str, Any]) -> Snapshot:
    content = dict(fields)
    version = content.pop("format")
    if version != FORMAT:
        message = f"format {version}, this release reads {FORMAT}"
        raise ValueError(message)
    content.update({name: tuple(content[name]) for name in TUPLES})
    content.update({name: _spans(content[name]) for name in SPANS})
    return Snapshot(**content)


def _spans(rows: Sequence[Mapping[str, Any]]) -> tuple[Span, ...]:
    return tuple(Span(**{**row, "beyond": tuple(row["beyond"])}) for row in rows)
