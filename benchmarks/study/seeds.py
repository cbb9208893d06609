"""What several seeds of a method come to: means, and how far three lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

SEEDS: Final = (1, 2, 3)  # of the whole study; a method that draws nothing has seed 0
STUDENT: Final = 4.303  # 97.5 % quantile of Student's t with two degrees of freedom

Row = Mapping[str, Any]


def rows_of(rows: Sequence[Row], stream: str, method: str) -> list[Row]:
    """Return a method's rows on a stream, one for each seed."""
    return [r for r in rows if (r["stream"], r["method"]) == (stream, method)]


def measured(rows: Sequence[Row], stream: str, method: str) -> dict[str, list[float]]:
    """Return a method's measures, each seed by seed, where every seed has one; nothing if it was not run."""
    chosen = rows_of(rows, stream, method)
    names = [name for name, value in chosen[0].items() if isinstance(value, float)] if chosen else []
    values = {name: [row.get(name) for row in chosen] for name in names}
    return {name: [v for v in vs if v is not None] for name, vs in values.items() if None not in vs}


def averaged(rows: Sequence[Row], stream: str, method: str) -> dict[str, float]:
    """Return the means over seeds of a method's measures; nothing if it was not run."""
    return {name: statistics.fmean(values) for name, values in measured(rows, stream, method).items()}


def half_width(values: Sequence[float]) -> float | None:
    """Return half of the 95 % interval of the mean over seeds, by Student's t; None of fewer than three."""
    if len(values) != len(SEEDS):
        return None
    return STUDENT * statistics.stdev(values) / math.sqrt(len(values))
