"""The demo's rollback: timed from the decision's record, and waiting for nobody for ever."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from priorflow import demo_serving
from priorflow.console import JsonLines

STANDS_IN = """
import json, sys, time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

place = Path(sys.argv[1]) / "champion"

class Answers(BaseHTTPRequestHandler):
    def do_POST(self):
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
say(event="rollback", at=at)
time.sleep(0.5)
"""


def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> list[dict[str, Any]]:
    """Have the demo's end shown with this in the place of `priorflow`."""
    monkeypatch.setattr(demo_serving, "_command", lambda home: [sys.executable, "-c", program, str(home)])
    out = io.StringIO()
    demo_serving.take_back(tmp_path, "a mail", JsonLines(out))
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_rollback_is_timed_from_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before the record, and what the command does after it, is the command's time alone."""
    lines = shown(tmp_path, monkeypatch, STANDS_IN)
    (told,) = [line for line in lines if line["event"] == "rolled_back"]
    assert told["answer"]["snapshot"] == "old"
    assert told["command_seconds"] >= 1.0
    assert 0 <= told["seconds"] <= told["command_seconds"] - 0.5


@pytest.mark.parametrize("program", ["import time; time.sleep(600)", "raise SystemExit(3)"])
def test_a_server_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(demo_serving, "_STARTS_S", 0.3)
    told = shown(tmp_path, monkeypatch, program)[-1]
    assert (told["event"], told["served"]) == ("served", False)
    assert "before it listened" in told["text"]


def test_a_rollback_that_is_refused_ends_the_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = shown(tmp_path, monkeypatch, STANDS_IN.replace("time.sleep(0.5)\nat", "sys.exit(2)\nat"))[-1]
    assert (told["event"], told["served"]) == ("served", False)
    assert "status 2" in told["text"]
