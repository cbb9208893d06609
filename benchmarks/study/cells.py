"""How a figure and a line of a table are written on the study's pages."""

from __future__ import annotations


def line(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Return a figure of three digits, without the nought before them; a dash where there is none."""
    if value is None:
        return "-"
    return _short(f"{value:.3f}") if abs(value) < 1 else f"{value:.3f}"


def signed(value: float) -> str:
    """Return a difference of three digits with its sign; nothing has none."""
    said = f"{value:+.3f}"
    return ".000" if float(said) == 0 else _short(said)


def _short(said: str) -> str:
    return said.replace("0.", ".", 1) if said.lstrip("+-").startswith("0.") else said
