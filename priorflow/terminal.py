"""The console of a person at a terminal: rich text, tables and bars."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, final

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

from priorflow.console import Progress, Row

_MARKS = {True: "yes", False: "no", None: "[dim]-[/]"}
_SHA = re.compile("[0-9a-f]{64}")
_SHA_SHOWN = 8
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@final
class Terminal:
    """Writes for a person; one bar line per open step."""

    def __init__(self, out: TextIO) -> None:
        """Write to this stream."""
        self._rich = RichConsole(file=out, highlight=False)
        self._bars: RichProgress | None = None

    def say(self, text: str, *, event: str = "note", **facts: Any) -> None:
        """Print the text; facts are for tools."""
        del event, facts
        self._rich.print(escape(text), soft_wrap=True)

    def warn(self, text: str, *, event: str = "warning", **facts: Any) -> None:
        """Print the text so that it stands out."""
        del event
        colour = "red" if facts.get("verdict") == "fail" else "yellow"
        self._rich.print(f"[{colour}]! {escape(text)}[/]", soft_wrap=True)

    def table(self, title: str, rows: Sequence[Row], *, event: str = "row") -> None:
        """Print a table without its empty columns; numbers stand on the right."""
        del event
        if not rows:
            self._rich.print(f"[dim]{escape(title)}: none[/]")
            return
        table = Table(title=escape(title), title_justify="left", box=None, padding=(0, 1, 0, 0))
        told = [n for n in rows[0] if any(row.get(n) not in (None, "") for row in rows)]
        for name in told:
            number = any(_is_number(row.get(name)) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(cell(row.get(name)) for name in told))
        self._rich.print(table)

    def show(self, value: Row, *, event: str = "value") -> None:
        """Print names and values, inner mappings indented."""
        del event
        for line in _lines(value, ""):
            self._rich.print(line, soft_wrap=True)

    def document(self, value: Row) -> None:
        """Print the document, indented."""
        self._rich.print_json(data=value, default=str)

    @contextmanager
    def progress(self, label: str, *, total: float | None = None) -> Iterator[Progress]:
        """Show a bar (a spinner while the total is unknown); bars of inner steps go below."""
        outermost = self._bars is None
        bars = self._bars or self._new_bars()
        if outermost:
            self._bars = bars
            bars.start()
        task = bars.add_task(escape(label), total=total)
        try:
            yield _Bar(bars, task)
            reached = max(1, bars.tasks[bars.task_ids.index(task)].completed)
            bars.update(task, total=reached, completed=reached)
        finally:
            if outermost:
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(task)

    def _new_bars(self) -> RichProgress:
        return RichProgress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._rich,
        )


@final
class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: float = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, steps)

    def expect(self, total: float) -> None:
        """Set the bar's length."""
        self._bars.update(self._task, total=total)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cell(value: object) -> str:
    """Return one table cell as rich markup; a sha is cut to what identifies it."""
    if value is None or isinstance(value, bool):
        return _MARKS[value]
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return escape(", ".join(f"{k} {v}" for k, v in value.items()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return escape(", ".join(map(str, value)))
    if isinstance(value, str) and _SHA.fullmatch(value):
        return value[:_SHA_SHOWN]
    colour = _COLOURS.get(str(value))
    return f"[{colour}]{value}[/]" if colour else escape(str(value))


def _lines(value: Row, indent: str) -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield f"{indent}[bold]{escape(str(name))}[/]"
            yield from _lines(inner, f"{indent}  ")
        elif isinstance(inner, Sequence) and inner and isinstance(inner[0], Mapping):
            yield f"{indent}[bold]{escape(str(name))}[/]"
            for item in inner:
                flat = ", ".join(f"{k} {cell(v)}" for k, v in item.items())
                yield f"{indent}  {flat}"
        else:
            yield f"{indent}[bold]{escape(str(name))}[/] {cell(inner)}"
