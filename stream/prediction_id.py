"""Prediction ids: they name the event and the snapshot, so a label may come back under either id.

    pf1.<event id, base64url>.<first 12 hex digits of the snapshot sha>

Resolved by parsing alone: no table of predictions has to be kept for as long as labels may take.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

FORM: Final = re.compile(r"pf1\.([A-Za-z0-9_-]+)\.([0-9a-f]{12})")


def prediction_id(event_id: str, snapshot_sha: str) -> str:
    """Name what this snapshot said of this event."""
    inside = base64.urlsafe_b64encode(event_id.encode()).decode().rstrip("=")
    return f"pf1.{inside}.{snapshot_sha[:12]}"


def event_of(name: str) -> str:
    """Return the event id inside a prediction id; any other text is an event id already."""
    if not name.startswith("pf1."):
        return name
    form = FORM.fullmatch(name)
    if form is None:
        return name
    try:
        return base64.urlsafe_b64decode(form[1] + "=" * (-len(form[1]) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return name
