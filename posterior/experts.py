"""Who is in the panel: products of what the heads say, to powers that hold them for as sure as they may be.

A product knows more than either of its factors where these err apart, and is surer; powers below 1, because
features are far from independent, and so are pieces. Which sets are here was settled on foretold and
held-out texts of the study's main streams; who of them is heard is for the pool to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """Exponents of a product.

    Of the class rows, of the views (so many of d features count), of the pieces, of softmax regression under
    a narrow prior and under a wide one.
    """

    rows: float = 0.0
    views: float = 0.0
    pieces: float = 0.0
    narrow: float = 0.0
    wide: float = 0.0


ROWS: Final = tuple(Expert(rows=1 / t) for t in (1.0, 1.5, 2.0, 3.0))
ALONE: Final = (
    *(Expert(views=f) for f in (192.0, 384.0, 768.0)),
    *(Expert(pieces=s) for s in (0.05, 0.1, 0.2)),
    Expert(narrow=1.0),
    Expert(wide=1.0),
)
_SURENESS: Final = (0.25, 0.5, 1.0, 2.0)
TOGETHER: Final = tuple(
    Expert(views=192.0 * c, pieces=0.05 * c, rows=r * c) for r in (0.0, 0.5) for c in _SURENESS
)
DIVIDED: Final = tuple(
    Expert(views=96.0 * c, pieces=0.025 * c, narrow=n * c, wide=w * c)
    for n, w in ((0.5, 0.0), (0.0, 0.5))
    for c in (0.5, 1.0, 2.0)
)
EXPERTS: Final = (*ROWS, *ALONE, *TOGETHER, *DIVIDED)


def divides(expert: Expert) -> bool:
    """Return whether it goes by a head that a window pushes off the classes it does not hold."""
    return bool(expert.rows or expert.narrow or expert.wide)
