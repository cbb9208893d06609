"""What a server takes on loopback: how much, how fast, and fifty changes of the champion under load.

    .venv/bin/python benchmarks/serving.py [--quick] [--json]

A chain of two windows of the demo's mails is learned with the default settings and published to an SQLite
store; `priorflow serve` runs as a process of its own with one thread. Clients in this process each send their
next request as soon as they have the answer to the last: one text a request, every text once, so that no
activation is at hand. While champions change, texts are asked whose answers tell the two apart, and each
answer is held against what its version gives, computed here beforehand. Most changes are lines of the log;
some are the commands that an operator types, with small requests and with as large ones as are taken.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import Estimate, quantile
from benchmarks.result import ROOT, Result, Row, arguments, progress, publish
from benchmarks.serving_answers import expect, told_apart
from benchmarks.serving_load import Changed, Seen, load_of
from benchmarks.streams import as_cloudevents, broker, fresh_folder, mixed, produce, topics
from connectors.blobs import open_blobs
from connectors.ledger import SqlLedger, open_ledger
from connectors.mails import Mail
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.quantities import parse_instant
from priorflow.run import execute

NAME: Final = "serving"
SIZE, WINDOWS = 500, 2
LEVELS: Final = (1, 4, 16)  # clients at once
SECONDS, QUICK_SECONDS = 20.0, 3.0  # of load at each level
CHANGES, QUICK_CHANGES = 38, 4  # by a line of the log
COMMANDS, QUICK_COMMANDS = 3, 1  # by commands, with small requests; as many again with large ones
CLIENTS, TEXTS_A_REQUEST = 8, 3  # while champions change
LARGE_CLIENTS: Final = 2
TEXTS, QUICK_TEXTS = 300, 100  # whose answers are known, asked one after the other and then again
APART_S: Final = 0.25  # from one champion's first answer to the next decision
WITHIN_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that was measured."""

    levels: list[dict[str, float]]
    seen: tuple[Seen, ...]
    by_line: Changed
    by_command: Changed
    large: Changed
    largest: int

    def total(self, count: Callable[[Seen], int]) -> int:
        """Add up over the phases in which champions changed."""
        return sum(map(count, self.seen))


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
        "serve.risk": 0.1,
        **{f"kafka.topics.{k}": getattr(names, k) for k in ("events", "labels", "dead_letters", "late")},
    }
    with broker(folder) as client:
        produce(client, as_cloudevents(stream(), names), names)
        settings = load(None, overrides=said | {"kafka.bootstrap": client.bootstrap})
        execute(settings, until_end=True, max_windows=WINDOWS, console=Silent())
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    return settings


def command(folder: Path, *arguments: str) -> list[str]:
    """Return a command on the chain."""
    words = [sys.executable, "-m", "priorflow", *arguments, "--json"]
    for name, value in json.loads((folder / "said.json").read_text()).items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return words


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the server; yield its address."""
    words = command(folder, "serve", "--port", "0")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        told = next(line for line in map(json.loads, process.stdout) if line["event"] == "serving")
        yield f"http://127.0.0.1:{told['port']}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


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


async def changes(seen: Seen, ledger: SqlLedger, shas: tuple[str, str], count: int) -> Changed:
    """Change the champion so often by a line of the log, the second in charge at first."""
    changed = Changed()
    for turn in range(count):
        new, old = shas[turn % 2], shas[1 - turn % 2]
        decided = time.time()
        promote(ledger, new)
        await _followed(seen, new, decided)
        changed.add(seen, decided, new, old)
    return changed


async def commanded(seen: Seen, folder: Path, shas: tuple[str, str], count: int) -> Changed:
    """Roll back from the second to the first, and promote the second again, so often, by the commands."""
    changed = Changed()
    why = ("--reason", "a benchmark")
    for _ in range(count):
        for new, old, words in (
            (shas[0], shas[1], ("rollback", "--to", shas[0])),
            (shas[1], shas[0], ("promote", shas[1], "--force")),
        ):
            begun = time.monotonic()
            decided = await _decided(command(folder, *words, *why))
            changed.command.append(time.monotonic() - begun)
            await _followed(seen, new, decided)
            changed.add(seen, decided, new, old)
    return changed


async def _decided(words: Sequence[str]) -> float:
    """Run a command; return when its decision was recorded."""
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"it ended with status {process.returncode}"
    said = map(json.loads, out.splitlines())
    return parse_instant(next(line["at"] for line in said if line["event"] in {"promote", "rollback"})) / 1000


async def _followed(seen: Seen, new: str, decided: float) -> None:
    """Wait until the new champion has answered, and a little longer, for answers of the old on their way."""
    while seen.first(new, decided) is None:
        await asyncio.sleep(0.005)
        assert time.time() - decided < 60, "no answer by the new champion"
    await asyncio.sleep(APART_S)


def promote(ledger: SqlLedger, sha: str) -> None:
    at_ms = time.time_ns() // 1_000_000
    ledger.decide("main", at_ms=at_ms, actor="benchmark", action="promote", snapshot=sha, evidence={})


async def measure(folder: Path, settings: Settings, *, quick: bool) -> Found:
    """Load one server, then change its champion."""
    seconds = QUICK_SECONDS if quick else SECONDS
    lines, commands = (QUICK_CHANGES, QUICK_COMMANDS) if quick else (CHANGES, COMMANDS)
    texts = (mail.text for mail in mixed(200_000, seed=2))
    blobs = open_blobs(settings.blobs_url)
    with closing(open_ledger(settings.ledger_url, blobs)) as ledger:
        rows = [row for row in ledger.history("main") if row.kind == "learned"][-2:]
        shas = (rows[0].sha, rows[1].sha)
        progress("what each version has to answer")
        asked = list(dict.fromkeys(itertools.islice(texts, QUICK_TEXTS if quick else TEXTS)))
        expected = expect(settings, ledger, blobs, rows, asked)
        known = itertools.cycle(told_apart(expected, asked))
        promote(ledger, shas[1])
        with serving(folder) as address:
            levels = await saturation(address, texts, seconds)
            async with load_of(address, CLIENTS, known, TEXTS_A_REQUEST, expected) as small:
                by_line = await changes(small, ledger, shas, lines)
                by_command = await commanded(small, folder, shas, commands)
            most = settings.serve.max_events
            async with load_of(address, LARGE_CLIENTS, known, most, expected) as whole:
                large = await commanded(whole, folder, shas, commands)
    return Found(
        levels=levels, seen=(small, whole), by_line=by_line, by_command=by_command, large=large, largest=most
    )


def main() -> None:
    """Measure and publish."""
    asked = arguments(__doc__)
    folder = fresh_folder(NAME)
    progress("learning a chain of two windows")
    settings = learned(folder)
    found = asyncio.run(measure(folder, settings, quick=asked.quick))
    publish(Result(name=NAME, rows=rows_of(found), how=how_of(found)), asked)


def rows_of(found: Found) -> list[Row]:
    """Return the claims and what was measured of them."""
    requests = found.total(lambda seen: len(seen.seconds))
    changed = sum(len(one.first) for one in (found.by_line, found.by_command, found.large))
    failed = f"requests that failed while the champion changed {changed} times"
    mixed_up = "requests with an answer that is not its version's to 1e-5, or with two versions"
    misnamed = "requests with an answer that names another number or snapshot than its version's"
    typed = "decision by `promote` or `rollback`"
    return [
        _none(failed, found.total(lambda seen: len(seen.failed)), requests),
        _none(mixed_up, found.total(lambda seen: seen.mixed), requests),
        _none(misnamed, found.total(lambda seen: seen.misnamed), requests),
        _within("decision to first answer by the new champion, slowest", found.by_line.first),
        _within(f"{typed}: first answer by the new, slowest", found.by_command.first),
        _within(f"{typed}: last answer by the old, slowest", found.by_command.last),
        _within(f"{typed}, requests of {found.largest} texts: first answer by the new", found.large.first),
        _within(f"{typed}, requests of {found.largest} texts: last answer by the old", found.large.last),
    ]


def how_of(found: Found) -> dict[str, Any]:
    """Return what a reader must know."""
    return {
        "load": found.levels,
        "while champions change": f"{CLIENTS} clients, {TEXTS_A_REQUEST} texts a request, of texts whose "
        "answers tell the two versions apart, asked one after the other and then again",
        "with large requests": f"{LARGE_CLIENTS} clients",
        "failures": [said for seen in found.seen for said in seen.failed][:5],
        "requests told to come back meanwhile": found.total(lambda seen: seen.refused),
        "decision to first answer, median s": round(quantile(found.by_line.first, 0.5).value, 3),
        "decision to last answer by the old, median s": round(quantile(found.by_line.last, 0.5).value, 3),
        "a command, slowest s": round(max(found.by_command.command + found.large.command), 1),
        "texts": "mails of up to 64 tokens, under load none twice; 10 draws each, with panel",
        "server": "one process, one thread; the clients share the machine",
    }


def _within(what: str, took: list[float]) -> Row:
    slowest = round(max(took), 3)
    return Row(
        what=what,
        bound="at most",
        target=WITHIN_S,
        measured=Estimate(slowest, slowest, slowest),
        unit="s",
        runs=len(took),
    )


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
