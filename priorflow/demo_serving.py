"""The demo's end: a server answers a mail by the champion, the champion is taken back, and it answers again.

All by the commands a person would type, in processes of their own. Two times are told: from the decision's
record to the first answer of the version that was put back, and how long the command took, which begins with
a Python that starts and ends with whoever is told of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, Final, final

from priorflow.console import Console
from priorflow.quantities import parse_instant

_STARTS_S: Final = 300.0  # until the model is loaded, on a machine that does other things too
_WITHIN_S: Final = 60.0
_ENDS_S: Final = 30.0
_LOOK_S: Final = 0.05


def take_back(folder: Path, text: str, console: Console) -> None:
    """Serve, ask, roll back, ask again; told as it happens, and a fault in it is told too."""
    try:
        with console.progress("starting a server"), _server(folder) as server:
            _told(server, text, console)
    except (OSError, subprocess.SubprocessError, RuntimeError) as failed:
        console.warn(f"the server did not do what the demo shows: {failed}", event="served", served=False)


def _told(server: _Server, text: str, console: Console) -> None:
    """Show an answer, then the one after a rollback."""
    before = server.ask(text)
    short = json.dumps({"text": f"{text[:60]} ..."}, ensure_ascii=False)
    console.say(
        f"$ curl -s {server.address}/predict -H 'content-type: application/json' -d '{short}'\n"
        f"  {_line(before)}",
        event="served",
        served=True,
        answer=before,
    )
    begun = time.monotonic()
    with server.begin("rollback", "--reason", "the demo shows how") as command:
        after, answered_ms = _another(server, text, before["snapshot"], command)
        decided_ms = _decided(command)
    took_s, turned_s = time.monotonic() - begun, (answered_ms - decided_ms) / 1000
    console.say(
        f"$ priorflow rollback\n  {turned_s:.1f} s after the decision the server answers from "
        f"{after['snapshot'][:12]} (the command took {took_s:.1f} s): {_line(after)}",
        event="rolled_back",
        seconds=round(turned_s, 2),
        command_seconds=round(took_s, 2),
        answer=after,
    )


def _another(
    server: _Server, text: str, former: str, command: subprocess.Popen[str]
) -> tuple[dict[str, Any], int]:
    """Ask until another snapshot than the former answers; return its answer, and when that came."""
    end = time.monotonic() + _WITHIN_S
    while (answer := server.ask(text))["snapshot"] == former:
        if command.poll():
            msg = f"`priorflow rollback` ended with status {command.returncode}"
            raise RuntimeError(msg)
        if time.monotonic() > end:
            msg = "it still answers from the version that was taken back"
            raise RuntimeError(msg)
        time.sleep(_LOOK_S)
    return answer, time.time_ns() // 1_000_000


def _decided(command: subprocess.Popen[str]) -> int:
    """Return when the decision was recorded, as the command tells it."""
    out, _ = command.communicate(timeout=_WITHIN_S)
    said = (json.loads(line) for line in out.splitlines())
    return parse_instant(next(line["at"] for line in said if line["event"] == "rollback"))


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

    def ask(self, text: str) -> dict[str, Any]:
        """Return the answer to a text."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.address}/predict",
            data=json.dumps({"text": text}).encode(),
            headers={"content-type": "application/json"},
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
