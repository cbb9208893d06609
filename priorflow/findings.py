"""One finding per check: what was found, and what to do where it is not well.

A check is a function of the settings that yields findings. An error that a port raises is a finding
too, so that one thing that is down does not hide the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from priorflow.config import Settings
from priorflow.exit_codes import ExitCode, code_for
from priorflow.masking import without_passwords

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `status` is the exit status it would cause if it failed."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""
    status: ExitCode = ExitCode.USAGE


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings, check: Check, what: str) -> list[Finding]:
    """Run one check; what it raises becomes a finding."""
    findings: list[Finding] = []
    try:
        findings.extend(check(settings))
    except Exception as error:  # noqa: BLE001 - a doctor reports whatever is wrong and goes on
        status = code_for(error)
        kind = "" if status is not ExitCode.BUG else f"{type(error).__name__}: "
        text = without_passwords(" ".join(str(error).split()))
        findings.append(Finding(what, "fail", f"{kind}{text}", _REMEDY.get(status, ""), status))
    return findings


_REMEDY: Final = {
    ExitCode.UNREACHABLE: "see that it runs and can be reached from here",
    ExitCode.LOST: "see docs/guarantees.md before anything is written",
    ExitCode.BUG: "run again with --debug",
}


def worst(findings: Sequence[Finding]) -> ExitCode:
    """Return the exit status of the first failure, or OK."""
    return next((f.status for f in findings if f.verdict == "fail"), ExitCode.OK)
