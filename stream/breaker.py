"""Stop when so much is bad that somebody should look before more is set aside."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, final

from stream.record import Position, Refusal

_REMEDY: Final = (
    "They are in the dead-letter topic. Mend the producer or the mapping, or raise records.breaker, and run "
    "again"
)


class TooMuchBad(RuntimeError):
    """The share or the run of bad records passed its limit; nothing more is consumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """Largest share among the last `over` records, and largest number in a row."""

    share: float = 0.2
    over: int = 1000
    run: int = 100


@final
class Breaker:
    """Counts in merge order, so that it trips at the same record however partitions were polled."""

    __slots__ = ("_bad", "_remedy", "_rules", "_run", "_seen", "_what")

    def __init__(self, rules: BreakerRules, *, what: str = "records are bad", remedy: str = _REMEDY) -> None:
        """Start with a clean slate: after a stop somebody has looked."""
        self._rules, self._what, self._remedy = rules, what, remedy
        self._seen = 0
        self._run = 0
        self._bad: deque[int] = deque()  # which of the last `over` records were bad, by their number

    def good(self) -> None:
        """Count a record that can be used."""
        self._seen += 1
        self._run = 0

    def bad(self, at: Position, refusal: Refusal) -> None:
        """Count a record that cannot; raises TooMuchBad."""
        self._seen += 1
        self._run += 1
        self._bad.append(self._seen)
        while self._bad[0] <= self._seen - self._rules.over:
            self._bad.popleft()
        if self._run > self._rules.run or len(self._bad) > self._rules.share * self._rules.over:
            msg = (
                f"{len(self._bad)} of the last {min(self._seen, self._rules.over)} {self._what}, "
                f"{self._run} in a row; the last is {at} ({refusal.stage}: {refusal.reason}). {self._remedy}"
            )
            raise TooMuchBad(msg)
