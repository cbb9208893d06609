"""What the demo promises to show, and what becomes of it where one of these did not happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, final

from priorflow.console import Console


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Which promises were kept: in this call, or in an earlier one whose record was found."""

    promoted: bool
    refused: bool
    replayed: bool
    taken_back: bool


_PROMISES: Final[Mapping[str, str]] = {
    "promoted": "the gate promotes a candidate",
    "refused": "the gate refuses a planted bad one",
    "replayed": "the last window is learned again, bit for bit",
    "taken_back": "a server answers, and after a rollback by the version that was put back",
}


def tell_broken(kept: Kept, console: Console) -> Sequence[str]:
    """Say which promises were not kept; return them, so that the command can fail."""
    broken = [_PROMISES[one.name] for one in fields(kept) if not getattr(kept, one.name)]
    if broken:
        text = f"THE DEMO DID NOT SHOW that {'; that '.join(broken)}. See the warnings above"
        console.warn(text, event="broken", broken=broken)
    return broken
