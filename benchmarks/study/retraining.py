"""Retraining after every window on all texts so far: what sequential learning is to be spared.

No method that sees a window once has its texts. What it forgets nonetheless is what a stream takes from
everybody: a window is easier while few classes are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from benchmarks.study.learners import Adapted
from benchmarks.study.streams import Example
from stream.plan import Forecast


@final
class Retrained:
    """A learner made anew for every window, which learns all texts so far at once."""

    def __init__(self, anew: Callable[[], Adapted]) -> None:
        """Start without a text; `anew` makes the learner, always the same one."""
        self._anew, self._adapted = anew, anew()
        self._texts: list[Example] = []

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the newest one."""
        return self._adapted.foretell(texts)

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the newest one, by its mean."""
        return self._adapted.recall(texts)

    def learn(self, window: Sequence[Example]) -> None:
        """Begin again, with this window's texts too."""
        self._texts.extend(window)
        self._adapted = self._anew()
        self._adapted.learn(self._texts)

    def carried(self) -> int:
        """Count the tensors, and all texts."""
        return self._adapted.carried() + sum(len(e.text.encode()) for e in self._texts)
