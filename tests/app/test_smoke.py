"""The clean process of the gate, and signals: what stops a run is not held against a candidate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from priorflow.config import Settings, load
from priorflow.smoke import smoke
from tests.app.serving.clerk import snapshot
from trainers.guards import Smoke

ROW = snapshot(1)


def trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Smoke:
    """Load a snapshot in a process that does this instead."""
    program = tmp_path / "python"
    program.write_text("\n".join([f"#!{sys.executable}", "import os, signal", *lines]), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr("priorflow.smoke.sys.executable", str(program))
    settings: Settings = load(None, overrides={"home": str(tmp_path)})
    return smoke(settings, ROW)


def test_what_is_pressed_in_the_run_s_terminal_does_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sends Ctrl-C to all processes of its group; this one has a group of its own."""
    said = 'print(\'{"label": "long", "took_ms": []}\')'
    tried = trying(tmp_path, monkeypatch, "assert os.getpgid(0) == os.getpid() == os.getsid(0)", said)
    assert tried == Smoke(snapshot=ROW.sha, loaded=True)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_who_was_ended_from_outside_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    own = f"signal.signal(signal.{name}, signal.SIG_DFL)" if name != "SIGKILL" else ""
    tried = trying(tmp_path, monkeypatch, own, f"os.kill(os.getpid(), signal.{name})")
    assert (tried.loaded, tried.ended) == (False, True)
    assert tried.why.startswith("signal ")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE"])
def test_who_crashes_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tried = trying(tmp_path, monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    assert (tried.loaded, tried.ended) == (False, False)
    assert tried.why.startswith("signal ")


def test_who_fails_by_itself_was_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trying(tmp_path, monkeypatch, "raise ValueError('no such layer')")
    assert tried == Smoke(snapshot=ROW.sha, loaded=False, why="ValueError: no such layer")
