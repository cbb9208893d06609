"""Clients that ask a server without a pause, and what they see of it while its champion changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from benchmarks.serving_answers import Expected, faults

COME_BACK_S: Final = 0.2


@dataclass
class Seen:
    """What clients saw: seconds of each answered request, those that failed, and those told to come back."""

    expected: Expected | None = None
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused: int = 0
    mixed: int = 0
    misnamed: int = 0
    answered: list[tuple[float, str]] = field(default_factory=list)  # when, and by which snapshot

    def take(self, texts: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> None:
        """Count a request that was answered."""
        if self.expected is not None:
            found = faults(self.expected, texts, answers)
            self.mixed += found.mixed
            self.misnamed += found.misnamed
        self.answered.append((time.time(), answers[-1]["snapshot"]))

    def first(self, sha: str, since: float) -> float | None:
        """Return when a snapshot first answered at or after a moment."""
        return next((at for at, by in self.answered if by == sha and at >= since), None)

    def last(self, sha: str, since: float) -> float:
        """Return when it last did; the moment itself if it has not since."""
        return max((at for at, by in self.answered if by == sha and at >= since), default=since)


@dataclass(frozen=True)
class Changed:
    """Seconds from each decision to the first answer by the new champion, and to the last by the old."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)

    def add(self, seen: Seen, decided: float, new: str, old: str) -> None:
        """Take down a change that the clients have seen."""
        first = seen.first(new, decided)
        assert first is not None
        self.first.append(first - decided)
        self.last.append(seen.last(old, decided) - decided)


@asynccontextmanager
async def load_of(
    address: str, clients: int, texts: Iterator[str], many: int, expected: Expected | None = None
) -> AsyncIterator[Seen]:
    """Have so many clients ask while the context is open."""
    seen, stop = Seen(expected), asyncio.Event()
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
        asked = [next(texts) for _ in range(many)]
        body = {"events": [{"text": text} for text in asked]}
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
        seen.take(asked, response.json()["answers"])
