"""The demo's end: a server answers a mail by the champion, the champion is taken back, and it answers again.

All by the commands a person would type, in processes of their own. Two times are told: from the decision's
record to the first answer of the version that was put back, and how long the command took, which begins with
a Python that starts and ends with whoever is told of it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, Final, final

from posterior.snapshot import Decision
from priorflow.console import Console
from priorflow.quantities import format_instant, parse_instant
from stream.plan import Member

ASKED: Final = "asked.json"  # in the demo's folder: the request, with a mail's text and its id
_JSON: Final = "content-type: application/json"
_STARTS_S: Final = 300.0  # until the model is loaded, on a machine that does other things too
_WITHIN_S: Final = 60.0
_ENDS_S: Final = 30.0
_LOOK_S: Final = 0.05


def take_back(folder: Path, mail: Member, log: Sequence[Decision], console: Console) -> bool:
    """Serve, ask, roll back, ask again; told as it happens. Return whether all of it did.

    Where an earlier call has rolled back already, its line is shown, and who answers by it.
    """
    body = folder / ASKED
    body.write_text(json.dumps({"text": mail.text, "id": mail.event_id}), encoding="utf-8")
    before = log[-1] if log and log[-1].action == "rollback" else None
    try:
        with console.progress("starting a server"), _server(folder) as server:
            if before is None:
                _told(server, body, console)
            else:
                _found(server, body, before, console)
    except (OSError, subprocess.SubprocessError, RuntimeError, ValueError, LookupError) as failed:
        console.warn(f"the server did not do what the demo shows: {failed!r}", event="served", served=False)
        return False
    return True


def _told(server: _Server, body: Path, console: Console) -> None:
    """Show an answer, then the one after a rollback."""
    before = _curled(server, body, console)
    begun = time.monotonic()
    with server.begin("rollback", "--reason", "the demo shows how") as command:
        after, answered_ms = _another(server, body, before["snapshot"], command)
        decided = _decided(command)
    took_s, turned_s = time.monotonic() - begun, (answered_ms - parse_instant(decided["at"])) / 1000
    _require(after, decided["snapshot"])
    console.say(
        f"$ priorflow rollback\n  {turned_s:.1f} s after the decision the server answers from "
        f"{after['snapshot'][:12]} (the command took {took_s:.1f} s): {_line(after)}",
        event="rolled_back",
        seconds=round(turned_s, 2),
        command_seconds=round(took_s, 2),
        answer=after,
    )


def _found(server: _Server, body: Path, line: Decision, console: Console) -> None:
    """Show the rollback of an earlier call, and that the server follows it."""
    answer = _curled(server, body, console)
    _require(answer, line.snapshot)
    when = f"{format_instant(line.at_ms)} by {line.actor}"
    console.say(
        f"rolled back before, and not again: line {line.seq} of the decision log, {when}, "
        f"from {(line.previous or 'nobody')[:12]} to {line.snapshot[:12]}, which answers",
        event="rolled_back_before",
        line=line.seq,
        snapshot=line.snapshot,
        previous=line.previous,
    )


def _require(answer: dict[str, Any], snapshot: str) -> None:
    if answer["snapshot"] != snapshot:
        msg = f"{answer['snapshot'][:12]} answers, and not {snapshot[:12]}, which was put back"
        raise RuntimeError(msg)


def _curled(server: _Server, body: Path, console: Console) -> dict[str, Any]:
    """Show a request as a person would type it, and its answer; curl asks it where there is one."""
    said = ["-s", f"{server.address}/predict", "-H", _JSON, "--data", f"@{os.path.relpath(body)}"]
    curl = shutil.which("curl")
    answer = server.ask(body) if curl is None else _run_curl([curl, *said])
    by = "  (there is no curl here: Python sent the same request)\n" if curl is None else ""
    command = shlex.join(["curl", *said])
    console.say(
        f"$ {command}\n{by}  {_line(answer)}",
        event="served",
        served=True,
        command=command,
        by="python" if curl is None else "curl",
        answer=answer,
    )
    return answer


def _run_curl(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - ours
        command, check=True, capture_output=True, text=True, timeout=_WITHIN_S
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "snapshot" not in answer:
        msg = f"curl was told {done.stdout[:200]}"
        raise RuntimeError(msg)
    return answer


def _another(
    server: _Server, body: Path, former: str, command: subprocess.Popen[str]
) -> tuple[dict[str, Any], int]:
    """Ask until another snapshot than the former answers; return its answer, and when that came."""
    end = time.monotonic() + _WITHIN_S
    while (answer := server.ask(body))["snapshot"] == former:
        if command.poll():
            msg = f"`priorflow rollback` ended with status {command.returncode}"
            raise RuntimeError(msg)
        if time.monotonic() > end:
            msg = "it still answers from the version that was taken back"
            raise RuntimeError(msg)
        time.sleep(_LOOK_S)
    return answer, time.time_ns() // 1_000_000


def _decided(command: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the decision's record, as the command tells it; RuntimeError if it tells of none."""
    out, _ = command.communicate(timeout=_WITHIN_S)
    for line in map(json.loads, out.splitlines()):
        if line["event"] == "rollback":
            told: dict[str, Any] = line
            return told
    msg = f"`priorflow rollback` ended with status {command.returncode} and told of no decision"
    raise RuntimeError(msg)


def _line(answer: dict[str, Any]) -> str:
    doubt = answer["uncertainty"]
    held = ", withheld" if answer["abstain"] else ""
    return (
        f"{answer['label']} {answer['probabilities'][answer['label']]:.3f}{held}; new class "
        f"{answer['novelty']:.3f}; doubt {doubt['total']:.2f} nats, {doubt['epistemic']:.2f} of it for want "
        f"of evidence; version {answer['version']}"
    )


@final
class _Server:
    """A server of the demo's chain."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder, self.address = folder, address

    def ask(self, body: Path) -> dict[str, Any]:
        """Return the answer to the request in a file."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.address}/predict",
            data=body.read_bytes(),
            headers=dict([_JSON.split(": ")]),
        )
        with urllib.request.urlopen(request, timeout=_WITHIN_S) as response:  # noqa: S310 - our own address
            said: dict[str, Any] = json.load(response)
        return said

    @contextmanager
    def begin(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Have a command run on the demo's chain; it is over, one way or the other, when the context is."""
        command = [*_command(self._folder), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def _server(folder: Path) -> Iterator[_Server]:
    """Start a server and wait until it listens, though no longer than it may take; then end it."""
    command = [*_command(folder), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        patience = Timer(_STARTS_S, process.kill)
        patience.start()
        try:
            assert process.stdout is not None
            lines = (json.loads(line) for line in process.stdout)
            told = next((line for line in lines if line["event"] == "serving"), None)
            patience.cancel()
            if told is None:
                msg = f"it ended with status {process.wait(_WITHIN_S)} before it listened"
                raise RuntimeError(msg)
            yield _Server(folder, f"http://{told['host']}:{told['port']}")
        finally:
            patience.cancel()
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _command(folder: Path) -> list[str]:
    config = str(folder / "priorflow.yaml")
    return [sys.executable, "-m", "priorflow", "--config", config, "--json"]
