"""What a registered version says of itself: tags for people and tools, metrics for charts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from posterior.snapshot import Circumstance, Snapshot
from stream.plan import canonical_json

UNCHARTABLE: Final = re.compile(r"[^\w\-. /]")  # MLflow refuses other characters in a metric's name


def version_tags(
    snapshot: Snapshot, circumstance: Circumstance, parent_version: str | None
) -> Mapping[str, str]:
    """Return lineage, positions and provenance; what does not apply is left out."""
    lows = {f"{span.topic}[{span.partition}]": span.low for span in snapshot.spans}
    marks = [span.watermark_ms for span in snapshot.spans if span.watermark_ms is not None]
    tags = {
        "chain": snapshot.chain,
        "seq": str(snapshot.seq),
        "index": str(snapshot.index),
        "kind": snapshot.kind,
        "snapshot_sha": snapshot.sha,
        "parent_sha": snapshot.parent,
        "parent_version": parent_version,
        "plan_sha": snapshot.plan,
        "offsets": canonical_json(lows).decode(),
        "window_time": str(snapshot.report.get("end_ms", max(marks, default=""))),
        "settings_sha": snapshot.settings,
        "code_version": circumstance.code_version,
    }
    return {name: value for name, value in tags.items() if value}


def metrics(snapshot: Snapshot, circumstance: Circumstance) -> Mapping[str, float]:
    """Return every number of the report, the record counts and the seconds, by chartable name."""
    groups = {"": snapshot.report, "records/": snapshot.counts, "seconds/": circumstance.seconds}
    return {
        UNCHARTABLE.sub("_", prefix + name): value
        for prefix, values in groups.items()
        for name, value in _numbers(values)
    }


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """Walk numbers in nested mappings; lists (matrices, diagrams) are for the manifest."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)
