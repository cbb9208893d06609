"""`priorflow config`: check what is written, show what holds, say what may be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import typer

from priorflow.invocation import Invocation

GROUP: Final = "config"
HELP: Final = "Check, explain and show the configuration."


def check(at: Invocation) -> None:
    """Check everything that can be checked without a broker: names, values, family, encoder."""
    settings = at.settings()
    from priorflow.learning import learning_settings
    from stream.plan import sha256_json

    learning = learning_settings(settings)
    sha = sha256_json(learning)
    at.console().say(
        f"the configuration can be used (learning settings {sha[:12]})",
        event="config",
        learning_sha256=sha,
        learning=learning,
    )


def schema(at: Invocation) -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from priorflow.config import Settings

    at.console().document(Settings.model_json_schema())


def show(
    at: Invocation,
    names: Annotated[bool, typer.Option("--names", help="All names with their meaning instead.")] = False,
) -> None:
    """Show the effective configuration: file, environment and defaults; secrets are masked."""
    console = at.console()
    if names:
        from priorflow.config import describe

        console.table("settings", [{"name": n, "meaning": m} for n, m in describe()])
        return
    console.document(at.settings().shown())


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "check": check,
    "schema": schema,
    "show": show,
}
