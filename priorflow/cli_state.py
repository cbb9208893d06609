"""`priorflow status` and `priorflow doctor`: where things stand, and whether they are well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from priorflow.console import Console
from priorflow.exit_codes import ExitCode
from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from priorflow.findings import Finding

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
        told = settings.decisions.webhook is not None
        value = standing(ledger, name, history, ends_if_reachable(settings), webhook=told)
    at.console().show(value, event="status")


def doctor(at: Invocation) -> None:
    """Check that everything a run needs is in place; each finding says what to do."""
    settings = at.settings()
    from priorflow.doctor import CHECKS
    from priorflow.findings import examine, worst

    console, findings = at.console(), []
    with console.progress("examining", total=len(CHECKS)) as progress:
        for what, check in CHECKS:
            for finding in examine(settings, check, what):
                findings.append(finding)
                _tell(console, finding)
            progress.advance()
    code = worst(findings)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _tell(console: Console, finding: Finding) -> None:
    facts = {name: asdict(finding)[name] for name in SAID}
    text = f"{finding.what}: {finding.found}"
    if finding.verdict == "ok":
        console.say(f"✓ {text}", event="finding", **facts)
    else:
        console.warn(f"{text}; {finding.remedy}".rstrip("; "), event="finding", **facts)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"status": status, "doctor": doctor}
