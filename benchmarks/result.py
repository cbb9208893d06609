"""What a benchmark says, in one form for all: rows with a target, what was measured, and a verdict.

    {name, date, machine, how, rows: [{what, target, measured, unit, runs, verdict, bound, interval}]}

A row is `met` when its whole 95 % interval keeps to the target, and `short` otherwise: a value that meets
it by luck does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.intervals import Estimate
from priorflow.run import machine

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim: `measured` is to be at least, or at most, the target."""

    what: str
    bound: Literal["at least", "at most"]
    target: float
    measured: Estimate
    unit: str
    runs: int

    @property
    def verdict(self) -> Literal["met", "short"]:
        """Judge by the end of the interval that is nearer to failing, as it is written."""
        low, high = _rounded(self.measured.low), _rounded(self.measured.high)
        return "met" if (low >= self.target if self.bound == "at least" else high <= self.target) else "short"

    def as_json(self) -> dict[str, Any]:
        """Return the row as other tools read it."""
        return {
            "what": self.what,
            "target": self.target,
            "measured": _rounded(self.measured.value),
            "unit": self.unit,
            "runs": self.runs,
            "verdict": self.verdict,
            "bound": self.bound,
            "interval": [_rounded(self.measured.low), _rounded(self.measured.high)],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a benchmark found; `how` is what a reader must know before believing the numbers."""

    name: str
    rows: Sequence[Row]
    how: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the result as other tools read it."""
        return {
            "name": self.name,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {**machine(), "torch": torch.__version__},
            "how": dict(self.how),
            "rows": [row.as_json() for row in self.rows],
        }


def arguments(doc: str | None) -> argparse.Namespace:
    """Read what every benchmark takes: --quick and --json."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it; not written")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    return parser.parse_args()


def publish(result: Result, asked: argparse.Namespace) -> None:
    """Print the result, and write it beside the others unless it was a quick one."""
    said = result.as_json()
    text = json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if not asked.quick:
        (RESULTS / f"{result.name}.json").write_text(text, encoding="utf-8")
    if asked.json:
        print(text, end="")
    else:
        Console().print(_table(said))


def progress(text: str) -> None:
    """Tell a waiting person how far it is; the result alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def _table(said: Mapping[str, Any]) -> Table:
    table = Table(
        "what", "target", "measured", "95 % interval", "unit", "runs", "verdict", title=said["name"]
    )
    for row in said["rows"]:
        low, high = row["interval"]
        cells = (f"{row['bound']} {row['target']}", f"{row['measured']}", f"{low} to {high}", row["unit"])
        table.add_row(row["what"], *cells, str(row["runs"]), row["verdict"])
    return table
