"""What passes between a driver and its Ray workers: one order at a time, and its answer, as bytes.

Ray starts processes that only hand things on, the feed's own and the controller of a fit. They import this
module and neither torch nor transformers, which takes seconds each: what passes is opaque to them.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Feed:
    """One order at a time, and its answer. Runs as an async actor, so waiting blocks nobody."""

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._changed = asyncio.Condition()
        self._step, self._open = -1, True
        self._pids: dict[int, int] = {}
        self._order: bytes | None = None
        self._answer: bytes | str | None = None

    async def put(self, order: bytes) -> int:
        """Offer the next order and return its step."""
        async with self._changed:
            self._step, self._order, self._answer = self._step + 1, order, None
            self._changed.notify_all()
            return self._step

    async def hello(self, rank: int, pid: int) -> None:
        """Note which process a rank runs in, for operators."""
        self._pids[rank] = pid

    async def pids(self) -> dict[int, int]:
        """Return the process of each rank."""
        return dict(self._pids)

    async def take(self, after: int) -> tuple[int, bytes | None]:
        """Wait for an unanswered order later than `after`; (step, None) means stop."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._open or (self._step > after and self._answer is None)
            )
            return self._step, self._order if self._open else None

    async def answer(self, step: int, answer: bytes | str) -> None:
        """Give the outcome of a step, or what made it impossible; a late answer is ignored."""
        async with self._changed:
            if step == self._step:
                self._answer = answer
                self._changed.notify_all()

    async def result(self, step: int) -> bytes | str:
        """Wait for a step's answer."""
        async with self._changed:
            await self._changed.wait_for(lambda: step == self._step and self._answer is not None)
            assert self._answer is not None
            return self._answer

    async def stop(self) -> None:
        """Send the workers home."""
        async with self._changed:
            self._open = False
            self._changed.notify_all()


def work(config: dict[str, Any]) -> None:
    """Carry out orders until there are no more. Runs in every worker; the controller only knows its name."""
    from trainers.ray_update import carry_out_orders  # noqa: PLC0415  see the module

    carry_out_orders(config)
