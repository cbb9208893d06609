"""Named steps at which a process may die: fault tests stand on them, production passes through.

The stores call their `Crash` with the name of each step where dying would be most awkward. A test
hands in a function that kills the process, freezes it or raises; everyone else uses `live`.
"""

from __future__ import annotations

from collections.abc import Callable

Crash = Callable[[str], None]


def live(_step: str) -> None:
    """Go on living."""
