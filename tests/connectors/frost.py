"""A process that stands still: its connections remain, and nothing answers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_LIMIT_S = 30


def freeze(pid: int) -> None:
    """Stop a process, and wait until none of its threads runs.

    The signal alone is no proof: a thread that runs on another core can still answer after `kill` returned.
    """
    os.kill(pid, signal.SIGSTOP)
    limit = time.monotonic() + _LIMIT_S
    while not _still(pid):
        assert time.monotonic() < limit, f"process {pid} does not stand still"
        time.sleep(0.01)


def thaw(pid: int) -> None:
    """Let it go on."""
    os.kill(pid, signal.SIGCONT)


def _still(pid: int) -> bool:
    states = [_state(thread / "stat") for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(state in {"T", "gone"} for state in states)


def _state(stat: Path) -> str:
    try:
        return stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
