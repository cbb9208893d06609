"""The demo's end: a server answers a mail by the champion, the champion is taken back, and it answers again.

All by the commands a person would type, in processes of their own.
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
from typing import Any, Final, final

from priorflow.console import Console

_WITHIN_S: Final = 60.0
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
    decided = time.monotonic()
    server.run("rollback", "--reason", "the demo shows how")
    after = server.ask(text)
    while after["snapshot"] == before["snapshot"]:
        if time.monotonic() - decided > _WITHIN_S:
            msg = "it still answers from the version that was taken back"
            raise RuntimeError(msg)
        time.sleep(_LOOK_S)
        after = server.ask(text)
    seconds = time.monotonic() - decided
    console.say(
        f"$ priorflow rollback\n  {seconds:.1f} s later the server answers from {after['snapshot'][:12]}: "
        f"{_line(after)}",
        event="rolled_back",
        seconds=round(seconds, 2),
        answer=after,
    )


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

    def run(self, *arguments: str) -> None:
        """Run a command on the demo's chain."""
        subprocess.run(  # noqa: S603 - ours
            [*_command(self._folder), *arguments], check=True, capture_output=True, timeout=_WITHIN_S
        )


@contextmanager
def _server(folder: Path) -> Iterator[_Server]:
    command = [*_command(folder), "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        told = next((line for line in lines if line["event"] == "serving"), None)
        if told is None:
            msg = f"it ended with status {process.wait(_WITHIN_S)} before it listened"
            raise RuntimeError(msg)
        yield _Server(folder, f"http://{told['host']}:{told['port']}")
    finally:
        process.terminate()
        process.communicate(timeout=_WITHIN_S)


def _command(folder: Path) -> list[str]:
    config = str(folder / "priorflow.yaml")
    return [sys.executable, "-m", "priorflow", "--config", config, "--json"]
