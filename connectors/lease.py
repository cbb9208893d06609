"""Who holds a lease: host and pid for people, and enough to tell a dead owner from a live one.

An owner reads `host/pid/place/started`. `place` hashes the boot and the pid namespace: only where
it equals ours do pids mean the same processes, so only there may we call an owner dead. `started`
is the process's start tick: a pid that was given to someone else does not pass for the owner.
Judging wrongly would cost a restart, never a row, for the fence refuses the loser's writes.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Final

from posterior.snapshot import Fence, Fenced, LeaseHeld

STATE, STARTED = 0, 19  # fields of /proc/PID/stat counted after the command's closing bracket
PARTS: Final = 4


def this_owner() -> str:
    """Name the running process as an owner."""
    pid = os.getpid()
    return f"{socket.gethostname()}/{pid}/{_place()}/{_started(pid) or 0}"


def is_gone(owner: str) -> bool:
    """Tell whether the owner is certainly dead; False wherever that cannot be known from here."""
    parts = owner.split("/")
    if len(parts) != PARTS or not parts[1].isdigit():
        return False
    host, pid, place, started = parts
    if host != socket.gethostname() or place != _place():
        return False
    if not place:  # no /proc: all that can be asked is whether the pid exists
        return not _exists(int(pid))
    return _started(int(pid)) != started


def shown(owner: str) -> str:
    """Write an owner as operators read it."""
    parts = owner.split("/")
    return f"pid {parts[1]} on host {parts[0]}" if len(parts) == PARTS else owner


def held(chain: str, owner: str, remaining_ms: int) -> LeaseHeld:
    """Say who holds the chain, for how long, and what can be done about it."""
    return LeaseHeld(
        f"chain {chain} is held by {shown(owner)} for another {remaining_ms / 1000:.1f} s; "
        "stop that process, wait, or take the chain over (its next write is then refused)"
    )


def fenced(fence: Fence, epoch: int, owner: str | None) -> Fenced:
    """Say that our time is over and whose has begun."""
    successor = shown(owner) if owner else "nobody yet"
    return Fenced(
        f"chain {fence.chain}: epoch {fence.epoch} is over, epoch {epoch} belongs to {successor}; "
        "nothing was written, and this process must stop"
    )


def _place() -> str:
    """Hash boot and pid namespace; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:12]


def _started(pid: int) -> str | None:
    """Return the start tick of a live process; None if there is none (a zombie has died)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[STATE] in "ZX" else fields[STARTED]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
