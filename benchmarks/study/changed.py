"""What a change does: the changed run minus the default's, text by text, on the stream and seed of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from benchmarks.study.cells import line, signed
from benchmarks.study.methods import PRIORFLOW
from benchmarks.study.paired import Difference, both, costs, difference, final_rights
from benchmarks.study.walk import Trace

FINAL: Final = "final_accuracy"
NLL: Final = "prequential_nll"
DIGITS: Final = 5

Row = Mapping[str, Any]


def minus(changed: Trace, default: Trace, *, pi_new: float) -> dict[str, dict[str, Any]]:
    """Return by how much a run ends better than the default's and costs more beforehand, with intervals.

    Where there is nothing to compare, as beforehand of what learns everything at once, a measure is left out.
    """
    pairs = {
        FINAL: (final_rights(changed), final_rights(default)),
        NLL: both(costs(changed, pi_new), costs(default, pi_new)) if changed.told else ([], []),
    }
    return {name: _said(difference(*pair)) for name, pair in pairs.items() if pair[0]}


def without_stale(rows: Sequence[Row], done: Collection[str]) -> list[Row]:
    """Return rows told earlier; of a stream whose default is at hand, another run of it was beside them."""
    return [{k: v for k, v in row.items() if k != "minus" or row["stream"] not in done} for row in rows]


def _said(found: Difference) -> dict[str, Any]:
    interval = [round(found.low, DIGITS), round(found.high, DIGITS)]
    return {"value": round(found.value, DIGITS), "interval": interval, "texts": found.texts}


def changes_table(rows: Sequence[Row], methods: Sequence[str]) -> str:
    """Return a table of a page: each change by stream, as far as it was run beside the default."""
    heads = (
        "changed",
        "stream",
        "final",
        "95 %",
        "forgetting",
        "learning",
        "preq. NLL",
        "95 %",
        "CPU, times",
    )
    ours = {row["stream"]: row for row in rows if row["method"] == PRIORFLOW}
    lines = [line(*heads), "|---" * len(heads) + "|"]
    told = [row for row in rows if "minus" in row and row["stream"] in ours]
    lines += [
        line(f"`{name}`", row["stream"], *_cells(row, ours[row["stream"]]))
        for name in methods
        for row in told
        if row["method"] == name
    ]
    return "\n".join(lines)


def _cells(row: Row, default: Row) -> list[str]:
    final, nll = (_paired(row["minus"].get(name)) for name in (FINAL, NLL))
    apart = (
        "-" if row.get(name) is None else signed(row[name] - default[name])
        for name in ("forgetting", "learning_accuracy")
    )
    return [*final, *apart, *nll, f"{row['cpu_seconds'] / default['cpu_seconds']:.2f}"]


def _paired(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return signed(found["value"]), " to ".join(map(signed, found["interval"]))
