"""`priorflow assets`: what is fetched once: Kafka, the demo's mails, the encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

GROUP: Final = "assets"
HELP: Final = "Fetch what the embedded broker and the demo need."

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {}
