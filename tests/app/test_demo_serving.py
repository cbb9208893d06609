"""The demo's rollback: timed from the decision's record, shown or failed, and waiting for nobody for ever."""

from __future__ import annotations

import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posterior.snapshot import Decision
from priorflow import demo_serving
from priorflow.console import JsonLines
from tests.app.judged import member

MAIL = replace(member(1, 0, 0, None), text='Kernel\'s "2.4.19" is out\n@all, and it boots: ' + "x" * 100)

STANDS_IN = """
import json, sys, time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

place, asked = Path(sys.argv[1]) / "champion", Path(sys.argv[1]) / "asked"

class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        with asked.open("ab") as file:
            file.write(self.rfile.read(int(self.headers["content-length"])) + b"\\n")
        assert self.headers["content-type"] == "application/json"
        snapshot = place.read_text()
        body = {"label": "a", "probabilities": {"a": 1.0}, "abstain": False, "novelty": 0.0, "version": "1"}
        body |= {"uncertainty": {"total": 0.0, "epistemic": 0.0}, "snapshot": snapshot}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass

def say(**facts):
    print(json.dumps(facts), flush=True)

if sys.argv[2] == "serve":
    place.write_text("new")
    server = HTTPServer(("127.0.0.1", 0), Answers)
    say(event="serving", host="127.0.0.1", port=server.server_port)
    server.serve_forever()
time.sleep(0.5)
at = datetime.now(UTC).isoformat()
draft = place.with_suffix(".draft")
draft.write_text("old")
draft.replace(place)
say(event="rollback", at=at, snapshot="old")
time.sleep(0.5)
"""


def shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    *log: Decision,
    kept: bool,
) -> list[dict[str, Any]]:
    """Have the demo's end shown with this in the place of `priorflow`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_serving, "_command", lambda home: [sys.executable, "-c", program, str(home)])
    out = io.StringIO()
    assert demo_serving.take_back(tmp_path, MAIL, log, JsonLines(out)) is kept
    return [json.loads(line) for line in out.getvalue().splitlines()]


def only(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (told,) = [line for line in lines if line["event"] == event]
    return told


def rolled_back(to: str) -> Decision:
    return Decision(
        seq=7,
        chain="demo",
        at_ms=1_000,
        actor="ada@host",
        action="rollback",
        snapshot=to,
        previous="former",
        evidence={},
        before="",
        hash="",
    )


def test_a_rollback_is_timed_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before the record, and what the command does after it, is the command's time alone."""
    told = only(shown(tmp_path, monkeypatch, STANDS_IN, kept=True), "rolled_back")
    assert told["answer"]["snapshot"] == "old"
    assert told["command_seconds"] >= 1.0
    assert 0 <= told["seconds"] <= told["command_seconds"] - 0.5


@pytest.mark.parametrize("program", ["import time; time.sleep(600)", "raise SystemExit(3)"])
def test_a_server_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(demo_serving, "_STARTS_S", 0.3)
    told = shown(tmp_path, monkeypatch, program, kept=False)[-1]
    assert (told["event"], told["served"]) == ("served", False)
    assert "before it listened" in told["text"]


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("sys.exit(2)\nat", "status 2"),  # refused
        ("print('no JSON')\nplace.write_text('old')\nsys.exit(0)\nat", "Error"),
        ("place.write_text('old')\nsys.exit(0)\nat", "told of no decision"),
        ("place.write_text('third')\nat", "third answers, and not old"),  # another than was put back
    ],
)
def test_a_rollback_that_did_not_happen_fails_the_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
) -> None:
    program = STANDS_IN.replace("time.sleep(0.5)\nat", does)
    if "third" in does:
        program = program.replace('draft.write_text("old")', 'draft.write_text("third")')
    line = shown(tmp_path, monkeypatch, program, kept=False)[-1]
    assert (line["event"], line["served"]) == ("served", False)
    assert told in line["text"]


@pytest.mark.parametrize("curl", [True, False])
def test_the_command_that_is_shown_asks_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curl: bool
) -> None:
    """Quotes, a line break and an @ in it, and longer than a line; typed again it is the same request."""
    if curl:
        curls(tmp_path, monkeypatch)
    else:
        monkeypatch.setattr("shutil.which", lambda _: None)
    told = only(shown(tmp_path, monkeypatch, STANDS_IN, kept=True), "served")
    assert told["by"] == ("curl" if curl else "python")
    assert ("Python sent the same request" in told["text"]) == (not curl)
    words = shlex.split(told["command"])
    assert words[0] == "curl"
    assert f"$ {told['command']}\n" in told["text"]
    (at,) = [word for word in words if word.startswith("@")]
    assert not Path(at[1:]).is_absolute()
    asked = {*(tmp_path / "asked").read_bytes().splitlines()}
    assert asked == {Path(at[1:]).read_bytes()}
    assert json.loads(asked.pop()) == {"text": MAIL.text, "id": MAIL.event_id}


def curls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a curl in the path that knows the options of ours: not every machine has one."""
    program = tmp_path / "bin" / "curl"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{CURL}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


CURL = """
import sys, urllib.request
assert (sys.argv[1], sys.argv[3], sys.argv[5]) == ("-s", "-H", "--data")
data = open(sys.argv[6].removeprefix("@"), "rb").read().replace(b"\\n", b"")  # as curl does
headers = dict([sys.argv[4].split(": ")])
print(urllib.request.urlopen(urllib.request.Request(sys.argv[2], data, headers)).read().decode())
"""


def test_what_was_rolled_back_before_is_told_with_its_line_and_who_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(tmp_path, monkeypatch, STANDS_IN, rolled_back("new"), kept=True)
    told = only(lines, "rolled_back_before")
    assert (told["line"], told["snapshot"]) == (7, "new")
    assert "line 7 of the decision log" in told["text"]
    assert only(lines, "served")["answer"]["snapshot"] == "new"
    assert all(line["event"] != "rolled_back" for line in lines)


def test_a_server_that_does_not_follow_that_line_fails_the_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = shown(tmp_path, monkeypatch, STANDS_IN, rolled_back("older"), kept=False)[-1]
    assert "new answers, and not older" in told["text"]
