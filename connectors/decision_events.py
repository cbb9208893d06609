"""A line of the decision log as a CloudEvent, and which lines somebody outside should hear of.

Pure functions. The id is the line's hash, so a receiver that meets one twice knows it; `data` is the whole
line, from which the hash can be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from posterior.snapshot import IN_CHARGE, Action, Decision
from stream.plan import canonical_json

MEDIA_TYPE: Final = "application/cloudevents+json"
PREFIX: Final = "io.priorflow.decision."
_TYPES: Final[Mapping[Action, str]] = {
    "promote": "promoted",
    "rollback": "rolledback",  # a type's name is lower case, letters and digits
    "refuse": "refused",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def worth_telling(log: Sequence[Decision], place: int) -> bool:
    """Tell whether a line says something new: who is in charge, or a refusal unlike the one before it.

    A candidate that stays bad is refused after every window; that is told once. Waits are never told.
    """
    line = log[place]
    if line.action in IN_CHARGE:
        return True
    if line.action != "refuse":
        return False
    before = next((one for one in reversed(log[:place]) if one.action != "wait"), None)
    return before is None or before.action != "refuse" or _said(before) != _said(line)


def event(line: Decision) -> bytes:
    """Return the line as a CloudEvent 1.0 in structured JSON; the same bytes however often."""
    at = _EPOCH + timedelta(milliseconds=line.at_ms)
    return canonical_json(
        {
            "specversion": "1.0",
            "id": line.hash,
            "source": f"/priorflow/chains/{quote(line.chain)}",
            "type": PREFIX + _TYPES[line.action],
            "subject": line.snapshot,
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "data": asdict(line),
        }
    )


def _said(line: Decision) -> tuple[Any, ...]:
    """Return what a refusal is about: who refuses what to whom, and for which gates."""
    gates: Sequence[Mapping[str, Any]] = line.evidence.get("gates", ())
    failed = [gate["gate"] for gate in gates if gate["verdict"] == "fail"]
    return line.actor, line.previous, line.evidence.get("reason"), *failed
