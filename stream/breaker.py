"""Stop when so much is bad that somebody should look before more is set aside."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import final

from stream.record import Record, Refusal


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
    """Counts in merge order, so that it trips at the same record in every run."""

    def __init__(self, rules: BreakerRules) -> None:
        """Start with a clean slate: after a stop somebody has looked."""
        self._rules = rules
        self._last: deque[bool] = deque(maxlen=rules.over)
        self._bad = 0
        self._run = 0

    def see(self, record: Record) -> None:
        """Count a released record; raises TooMuchBad."""
        bad = isinstance(record.body, Refusal)
        if len(self._last) == self._rules.over:
            self._bad -= self._last[0]
        self._last.append(bad)
        self._bad += bad
        self._run = self._run + 1 if bad else 0
        full = len(self._last) == self._rules.over
        if self._run > self._rules.run or (full and self._bad > self._rules.share * self._rules.over):
            assert isinstance(record.body, Refusal)
            msg = (
                f"{self._bad} of the last {len(self._last)} records are bad, {self._run} in a row; "
                f"the last is {record.position} ({record.body.stage}: {record.body.reason}). "
                f"They are in the dead-letter topic. Mend the producer or the mapping, or raise "
                f"records.breaker, and run again"
            )
            raise TooMuchBad(msg)
