"""`priorflow dlq`: records that could not be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

GROUP: Final = "dlq"
HELP: Final = "List, show and requeue dead letters."

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {}
