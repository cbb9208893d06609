"""Features and heads apart: what is lost because features were learned in sequence, and what the head loses.

                          features learned in sequence          features learned from everything
    head counted on       as they were when it counted them     (nothing moves: the two are one)
    head counted anew     all texts, as they are at the end     all texts

The head is linear discriminant analysis in each case, so what differs is where features come from and
whether what was counted still lies where it was. To count anew takes all texts, as retraining does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from benchmarks.study.heads import Counting, Lda
from benchmarks.study.learners import Adapted
from benchmarks.study.streams import Example
from stream.plan import Forecast


@final
class Headed:
    """Adapters that learn window by window by their own class rows, and a head on what they make of texts."""

    def __init__(self, adapted: Adapted, *, anew: bool) -> None:
        """Start without a class; `anew` counts every text again after each window."""
        self._adapted, self._anew = adapted, anew
        self._counting = Counting(adapted.features, Lda())
        self._texts: list[Example] = []

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        return self._counting.foretell(texts)

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Adapt, then count."""
        self._adapted.learn(window)
        self._texts.extend(window)
        if self._anew:
            self._counting = Counting(self._adapted.features, Lda())
        self._counting.learn(self._texts if self._anew else window)

    def carried(self) -> int:
        """Count adapters and head, and the texts that are counted again."""
        kept = sum(len(e.text.encode()) for e in self._texts) if self._anew else 0
        return self._adapted.carried() + self._counting.carried() + kept
