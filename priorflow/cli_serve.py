"""`priorflow serve` and `priorflow score`: answers over HTTP, and answers on a topic."""

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


def score(
    at: Invocation,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop once everything in the topic is answered.")
    ] = False,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Kafka cluster, or `embedded`.")
    ] = None,
) -> None:
    """Answer every event of the topic on another one, exactly once; start several to share the partitions."""
    settings = at.settings({"kafka.bootstrap": bootstrap})
    from priorflow.scoring import score as answer

    answer(settings, at.console(), until_end=until_end)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"serve": serve, "score": score}
