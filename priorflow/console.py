"""What a command says: a story with tables and bars for a person, one JSON object per line for a tool.

    Console.say(text, event=..., **facts)     something happened
    Console.warn(text, event=..., **facts)    something happened that somebody should look at
    Console.table(title, rows)                rows with the same keys
    Console.show(value)                       one value in full
    Console.document(value)                   one JSON document and nothing else
    Console.progress(label, total=...)        a step that takes a while

`Terminal` is for a terminal, `JsonLines` for everything else and for `--json`, `Silent` for nobody.
Facts are JSON values; a person sees the text, a tool sees the facts (and the text).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, TextIO, final

Row = Mapping[str, Any]
_STEPS_TOLD: Final = 10  # a tool hears of progress at most this often per step


class Progress(Protocol):
    """A step under way."""

    def advance(self, steps: float = 1) -> None:
        """Say that so much more is done."""
        ...

    def expect(self, total: float) -> None:
        """Say how much there is in all, once that is known."""
        ...


class Console(Protocol):
    """Whoever listens."""

    def say(self, text: str, *, event: str = "note", **facts: Any) -> None:
        """Tell that something happened."""
        ...

    def warn(self, text: str, *, event: str = "warning", **facts: Any) -> None:
        """Tell that something happened that somebody should look at."""
        ...

    def table(self, title: str, rows: Sequence[Row], *, event: str = "row") -> None:
        """Show rows that have the same keys; a tool gets one line per row."""
        ...

    def show(self, value: Row, *, event: str = "value") -> None:
        """Show one value in full."""
        ...

    def document(self, value: Row) -> None:
        """Print a JSON document that some other program is to read as it is."""
        ...

    def progress(self, label: str, *, total: float | None = None) -> AbstractContextManager[Progress]:
        """Show how far a step has come while the context is open."""
        ...


def console_for(*, json_lines: bool | None = None, out: TextIO | None = None) -> Console:
    """Return a terminal if there is one, unless JSON lines are asked for (or refused)."""
    stream = sys.stdout if out is None else out
    wanted = not stream.isatty() if json_lines is None else json_lines
    if wanted:
        return JsonLines(stream)
    from priorflow.terminal import Terminal  # noqa: PLC0415 - rich only where somebody looks

    return Terminal(stream)


@final
class JsonLines:
    """One JSON object per line, each with an `event`; flushed, so that a pipe sees it at once."""

    def __init__(self, out: TextIO) -> None:
        """Write to this stream."""
        self._out = out

    def _line(self, value: Row) -> None:
        self._out.write(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str) + "\n")
        self._out.flush()

    def say(self, text: str, *, event: str = "note", **facts: Any) -> None:
        """Write event, facts and text."""
        self._line({"event": event, **facts, "text": text})

    def warn(self, text: str, *, event: str = "warning", **facts: Any) -> None:
        """Write event, facts and text, marked as a warning."""
        self._line({"event": event, "level": "warning", **facts, "text": text})

    def table(self, title: str, rows: Sequence[Row], *, event: str = "row") -> None:
        """Write one line per row; the title is for people only."""
        del title
        for row in rows:
            self._line({"event": event, **row})

    def show(self, value: Row, *, event: str = "value") -> None:
        """Write the value as one line."""
        self._line({"event": event, **value})

    def document(self, value: Row) -> None:
        """Write the document as one line."""
        self._line(value)

    @contextmanager
    def progress(self, label: str, *, total: float | None = None) -> Iterator[Progress]:
        """Write a line at the start, at every tenth, and at the end."""
        step = _Told(self, label, total)
        step.tell()
        yield step
        step.tell(done=True)


@final
class _Told:
    """Progress as lines, few enough for a log."""

    def __init__(self, lines: JsonLines, label: str, total: float | None) -> None:
        self._lines, self._label, self._total = lines, label, total
        self._reached, self._tenths = 0.0, 0

    def advance(self, steps: float = 1) -> None:
        self._reached += steps
        if not self._total:
            return
        tenths = int(_STEPS_TOLD * self._reached / self._total)
        if tenths > self._tenths and tenths < _STEPS_TOLD:
            self.tell()
        self._tenths = tenths

    def expect(self, total: float) -> None:
        self._total = total

    def tell(self, *, done: bool = False) -> None:
        facts = {"reached": self._reached, "total": self._total, "done": done}
        self._lines.say(self._label, event="progress", **facts)


@final
class Silent:
    """Nobody listens."""

    def say(self, text: str, *, event: str = "note", **facts: Any) -> None:
        """Say nothing."""

    def warn(self, text: str, *, event: str = "warning", **facts: Any) -> None:
        """Say nothing."""

    def table(self, title: str, rows: Sequence[Row], *, event: str = "row") -> None:
        """Show nothing."""

    def show(self, value: Row, *, event: str = "value") -> None:
        """Show nothing."""

    def document(self, value: Row) -> None:
        """Print nothing."""

    @contextmanager
    def progress(self, label: str, *, total: float | None = None) -> Iterator[Progress]:
        """Let the step go on untold."""
        del label, total
        yield _Untold()


@final
class _Untold:
    def advance(self, steps: float = 1) -> None:
        """Say nothing."""

    def expect(self, total: float) -> None:
        """Say nothing."""
