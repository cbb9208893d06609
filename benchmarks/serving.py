"""What a server takes on loopback: how much, how fast, and fifty changes of the champion under load.

    .venv/bin/python benchmarks/serving.py [--quick] [--json]

A chain of two windows of the demo's mails is learned with the default settings; `priorflow serve` runs as a
process of its own with one thread. Clients in this process each send their next request as soon as they have
the answer to the last: one text a request, every text once, so that no activation is at hand.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import Estimate, quantile
from benchmarks.result import ROOT, Result, Row, arguments, progress, publish
from benchmarks.streams import as_cloudevents, broker, fresh_folder, mixed, produce, topics
from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from connectors.mails import Mail
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.run import execute

NAME: Final = "serving"
SIZE, WINDOWS = 500, 2
LEVELS: Final = (1, 4, 16)  # clients at once
SECONDS, QUICK_SECONDS = 20.0, 3.0  # of load at each level
CHANGES, QUICK_CHANGES = 50, 5
CLIENTS, TEXTS_A_REQUEST = 8, 3  # while champions change
APART_S: Final = 0.25  # from one champion's first answer to the next decision
WITHIN_S: Final = 2.0
COME_BACK_S: Final = 0.2


@dataclass
class Seen:
    """What clients saw: seconds of each answered request, those that failed, and those told to come back."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused: int = 0
    mixed: int = 0
    wrong: int = 0
    snapshots: dict[str, float] = field(default_factory=dict)  # sha -> when it last answered


def stream() -> list[Mail]:
    """Return the mails of the chain's stream."""
    return mixed(int(SIZE * WINDOWS * 1.1) + 400, seed=1)


def learned(folder: Path) -> Settings:
    """Learn a short chain and let the broker go."""
    names = topics(NAME)
    said: dict[str, Any] = {
        "home": str(folder / "home"),
        "window.kind": "count",
        "window.size": SIZE,
        "gate.enabled": False,
        "mlflow.enabled": False,
        "serve.risk": 0.1,
        **{f"kafka.topics.{k}": getattr(names, k) for k in ("events", "labels", "dead_letters", "late")},
    }
    with broker(folder) as client:
        produce(client, as_cloudevents(stream(), names), names)
        settings = load(None, overrides=said | {"kafka.bootstrap": client.bootstrap})
        execute(settings, until_end=True, max_windows=WINDOWS, console=Silent())
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    return settings


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the server; yield its address."""
    command = [sys.executable, "-m", "priorflow", "serve", "--port", "0", "--json"]
    for name, value in json.loads((folder / "said.json").read_text()).items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        told = next(line for line in map(json.loads, process.stdout) if line["event"] == "serving")
        yield f"http://127.0.0.1:{told['port']}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


@asynccontextmanager
async def load_of(address: str, clients: int, texts: Iterator[str], many: int) -> AsyncIterator[Seen]:
    """Have so many clients ask while the context is open."""
    seen, stop = Seen(), asyncio.Event()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as http:
        tasks = [asyncio.create_task(ask(http, texts, many, seen, stop)) for _ in range(clients)]
        yield seen
        stop.set()
        await asyncio.gather(*tasks)


async def ask(
    http: httpx.AsyncClient, texts: Iterator[str], many: int, seen: Seen, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        body = {"events": [{"text": next(texts)} for _ in range(many)]}
        begun = time.perf_counter()
        try:
            response = await http.post("/predict", json=body)
        except httpx.HTTPError as error:
            seen.failed.append(repr(error))
            continue
        if response.status_code == 429:  # the line is long and says so: nothing has failed
            seen.refused += 1
            await asyncio.sleep(COME_BACK_S)
            continue
        if response.status_code != 200:
            seen.failed.append(response.text)
            continue
        seen.seconds.append(time.perf_counter() - begun)
        answers = response.json()["answers"]
        shas = {answer["snapshot"] for answer in answers}
        seen.mixed += len(shas) > 1
        seen.wrong += any(not a["prediction_id"].endswith(a["snapshot"][:12]) for a in answers)
        seen.snapshots[shas.pop()] = time.monotonic()


async def saturation(address: str, texts: Iterator[str], seconds: float) -> list[dict[str, float]]:
    """Measure throughput and latency at each number of clients."""
    found = []
    for clients in LEVELS:
        begun = time.monotonic()
        async with load_of(address, clients, texts, 1) as seen:
            await asyncio.sleep(seconds)
        assert not seen.failed, seen.failed[:3]
        ordered = sorted(seen.seconds)
        found.append(
            {
                "clients": clients,
                "texts a second": round(len(ordered) / (time.monotonic() - begun), 1),
                "p50 ms": round(1000 * quantile(ordered, 0.5).value, 1),
                "p99 ms": round(1000 * quantile(ordered, 0.99).value, 1),
                "told to come back": seen.refused,
            }
        )
        progress(str(found[-1]))
    return found


async def changes(
    address: str, ledger: SqlLedger, shas: list[str], texts: Iterator[str], count: int
) -> tuple[Seen, list[float]]:
    """Change the champion so often under load; return what was seen and how long each change took."""
    took = []
    async with load_of(address, CLIENTS, texts, TEXTS_A_REQUEST) as seen:
        for turn in range(count):
            sha = shas[turn % len(shas)]
            decided = time.monotonic()
            promote(ledger, sha)
            while seen.snapshots.get(sha, 0.0) < decided:
                await asyncio.sleep(0.005)
                assert time.monotonic() - decided < 60, "no answer by the new champion"
            took.append(time.monotonic() - decided)
            await asyncio.sleep(APART_S)
    return seen, took


def promote(ledger: SqlLedger, sha: str) -> None:
    at_ms = time.time_ns() // 1_000_000
    ledger.decide("main", at_ms=at_ms, actor="benchmark", action="promote", snapshot=sha, evidence={})


async def measure(
    folder: Path, settings: Settings, *, quick: bool
) -> tuple[list[dict[str, float]], Seen, list[float]]:
    """Load one server, then change its champion."""
    seconds, count = (QUICK_SECONDS, QUICK_CHANGES) if quick else (SECONDS, CHANGES)
    texts = (mail.text for mail in mixed(200_000, seed=2))
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    shas = [row.sha for row in ledger.history("main") if row.kind == "learned"]
    promote(ledger, shas[-1])
    try:
        with serving(folder) as address:
            levels = await saturation(address, texts, seconds)
            seen, took = await changes(address, ledger, shas, texts, count)
    finally:
        ledger.close()
    return levels, seen, took


def main() -> None:
    """Measure and publish."""
    asked = arguments(__doc__)
    folder = fresh_folder(NAME)
    progress("learning a chain of two windows")
    settings = learned(folder)
    levels, seen, took = asyncio.run(measure(folder, settings, quick=asked.quick))
    requests = len(seen.seconds)
    rows = [
        _none(
            f"requests that failed while the champion changed {len(took)} times", len(seen.failed), requests
        ),
        _none("requests answered by more than one version", seen.mixed, requests),
        _none("answers that name another version than their prediction id", seen.wrong, requests),
        Row(
            what="decision to first answer by the new champion, slowest",
            bound="at most",
            target=WITHIN_S,
            measured=Estimate(max(took), max(took), max(took)),
            unit="s",
            runs=len(took),
        ),
    ]
    how = {
        "load": levels,
        "while champions change": f"{CLIENTS} clients, {TEXTS_A_REQUEST} texts a request",
        "requests told to come back meanwhile": seen.refused,
        "decision to first answer, median s": round(quantile(took, 0.5).value, 3),
        "texts": "mails of up to 64 tokens, none twice; 10 draws each, with panel",
        "server": "one process, one thread; the clients share the machine",
    }
    publish(Result(name=NAME, rows=rows, how=how), asked)


def _none(what: str, found: int, runs: int) -> Row:
    return Row(
        what=what,
        bound="at most",
        target=0,
        measured=Estimate(found, found, found),
        unit="requests",
        runs=runs,
    )


if __name__ == "__main__":
    main()
