"""The right name next to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel

_ALIKE = 0.6


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """Return the known name most like the wrong one, or None if nothing is like it."""
    match = difflib.get_close_matches(wrong, list(known), n=1, cutoff=_ALIKE)
    return match[0] if match else None


def elsewhere(wrong: str, section: type[BaseModel]) -> str | None:
    """Return the dotted name of a setting that is called exactly so in some other section."""
    for name, field in section.model_fields.items():
        if name == wrong:
            return name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found = elsewhere(wrong, inner)
            if found:
                return f"{name}.{found}"
    return None
