"""`priorflow serve`: answers over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from priorflow.invocation import Invocation


def serve(
    at: Invocation,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = None,
) -> None:
    """Answer over HTTP with the champion, and follow it; goes on with the last good version in an outage."""
    settings = at.settings({"serve.host": host, "serve.port": port})
    from priorflow.serving.service import serve as answer

    answer(settings, at.console())


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"serve": serve}
