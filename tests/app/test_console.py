from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorflow.console import Console, JsonLines, Silent, console_for
from priorflow.terminal import Terminal, cell

SHA = "0123456789abcdef" * 4


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def everything(console: Console) -> None:
    console.say("a [red]mail[/] from [queue]", event="mail", queue="fork")
    console.warn("odd")
    console.table("rows", [{"sha": SHA, "n": 1, "share": 0.123456, "same": True}])
    console.table("none", [])
    console.show({"counts": {"learned": 3}, "spans": [{"low": 1}], "labels": ["a", "b"]})
    console.document({"a": [1]})
    with console.progress("outer", total=4) as outer:
        outer.advance(2)
        with console.progress("inner") as inner:
            inner.expect(2)
            inner.advance()
        outer.advance(2)


def test_a_terminal_is_for_terminals_and_lines_for_everything_else() -> None:
    assert isinstance(console_for(out=Tty()), Terminal)
    assert isinstance(console_for(out=io.StringIO()), JsonLines)
    assert isinstance(console_for(out=Tty(), json_lines=True), JsonLines)
    assert isinstance(console_for(out=io.StringIO(), json_lines=False), Terminal)


def test_every_line_is_an_object_with_an_event() -> None:
    out = io.StringIO()
    everything(JsonLines(out))
    lines = told(out)
    assert lines[0] == {"event": "mail", "queue": "fork", "text": "a [red]mail[/] from [queue]"}
    assert lines[1]["level"] == "warning"
    assert lines[2]["sha"] == SHA
    document = [line for line in lines if "event" not in line]
    assert document == [{"a": [1]}]
    assert all("event" in line for line in lines if line not in document)


def test_lines_refuse_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        JsonLines(io.StringIO()).say("x", nll=float("nan"))


@given(st.integers(min_value=1, max_value=5_000), st.integers(min_value=1, max_value=700))
def test_progress_is_told_at_most_at_every_tenth(total: int, step: int) -> None:
    out = io.StringIO()
    with JsonLines(out).progress("x", total=total) as progress:
        for reached in range(0, total, step):
            progress.advance(min(step, total - reached))
    lines = told(out)
    assert 2 <= len(lines) <= 12
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["reached"] == total


def test_a_person_reads_what_was_said_as_it_was_said() -> None:
    out = io.StringIO()
    everything(Terminal(out))
    shown = out.getvalue()
    assert "a [red]mail[/] from [queue]" in shown
    assert SHA[:8] in shown
    assert SHA[:9] not in shown
    assert "learned 3" in shown


def test_a_step_that_fails_lets_the_terminal_go() -> None:
    console = Terminal(Tty())
    for _ in range(2):  # a bar left open would make the second one an inner step
        with pytest.raises(ZeroDivisionError), console.progress("x"):
            raise ZeroDivisionError
    assert console._bars is None


def test_nobody_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Silent())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123456, "0.123"), (12, "12"), (["a", "b"], "a, b"), (SHA, SHA[:8])]
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown
