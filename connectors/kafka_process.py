"""A process that outlives us: started in its own session, found again by its pid file, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

PAUSE_S: Final = 0.05
# Becomes the command after writing its own pid, so that none ever runs without a pid file.
_LAUNCH: Final = 'echo $$ > "$0" && exec "$@"'


def spawn(command: Sequence[str], *, pid_file: Path, log: Path, environ: Mapping[str, str]) -> int:
    """Start a command in a session of its own (a Ctrl-C meant for us must not stop it)."""
    wrapped = ["/bin/sh", "-c", _LAUNCH, str(pid_file), *command]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(wrapped[0], wrapped, dict(environ), file_actions=actions, setsid=True)


def find(pid_file: Path, *words: str) -> int | None:
    """Return the process of a pid file if its command line has these words.

    A pid alone proves nothing: after a reboot it may be anybody's.
    """
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    command = _command_line(pid)
    return pid if all(word in command for word in words) else None


def alive(pid: int) -> bool:
    """Tell whether a process runs; collects it if it was our child and has ended."""
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return bool(_command_line(pid))
    return ended == 0  # our child's command line is empty for a moment while it becomes Java


def end(pid: int, kind: signal.Signals, within_s: float) -> bool:
    """Send a signal, wait for the process to end, and return whether it did."""
    with suppress(ProcessLookupError):
        os.kill(pid, kind)
    deadline = time.monotonic() + within_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def listening(host: str, port: int) -> bool:
    """Tell whether something holds the port, by trying to hold it ourselves."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def answers(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _command_line(pid: int) -> str:
    """Return a process's command line; empty once it has ended, even if nobody has collected it."""
    if Path("/proc/self").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    said = subprocess.run(  # noqa: S603 - for systems without /proc
        ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return said.stdout.strip()
