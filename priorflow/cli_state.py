"""`priorflow status` and `priorflow doctor`: where things stand, and whether they are well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Final

import typer

from priorflow.exit_codes import ExitCode
from priorflow.invocation import Invocation

SAID: Final = ("what", "verdict", "found", "remedy")


def status(
    at: Invocation,
    chain: Annotated[str | None, typer.Option(help="Chain; default: as configured.")] = None,
) -> None:
    """Tell where the chain stands: head, positions and lag, accounting, what waits, champion."""
    settings = at.settings()
    from priorflow.cluster import ends_if_reachable
    from priorflow.opening import reading, require_history
    from priorflow.status import standing

    name = chain or settings.chain.name
    with reading(settings) as (ledger, _):
        history = require_history(ledger, name)
        if not history:
            at.console().say(f"chain {name} has no snapshot yet", event="status", chain=name)
            return
        value = standing(ledger, name, history[-1], ends_if_reachable(settings))
    at.console().show(value, event="status")


def doctor(at: Invocation) -> None:
    """Check that everything a run needs is in place; each finding says what to do."""
    settings = at.settings()
    from priorflow.doctor import CHECKS, examine, worst

    console, findings = at.console(), []
    with console.progress("examining", total=len(CHECKS)) as progress:
        for what, check in CHECKS:
            findings.extend(examine(settings, check, what))
            progress.advance()
    rows = [{name: asdict(finding)[name] for name in SAID} for finding in findings]
    console.table("findings", rows, event="finding")
    code = worst(findings)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"status": status, "doctor": doctor}
