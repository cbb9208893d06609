"""A belief and a coreset: texts that are kept have not been learned by what is handed on.

    kept_t   a uniform sample of all texts so far, at most `size` (algorithm R)
    q_t      q_{t-1} updated on what is not kept any more: (window_t + kept_{t-1}) - kept_t
    asked    q_t updated on kept_t: a copy, made after each window and never handed on

So each text is evidence once, in what is handed on or in the copy on top of it, of adapters and class rows as
of the panel's counts; and what is asked has learned the texts that are kept last. A text that a window drives
out is learned with that window. Forgetting is judged by what is handed on alone: the copy keeps all of it,
for old texts say nothing about whether the stream has moved. Pools of the panel hear a text when it is
counted, as foretold by what is handed on.

Source: Nguyen, Li, Bui and Turner, Variational continual learning, ICLR 2018, arXiv:1710.10628.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import final

from benchmarks.study.chain import Belief, Chain, Frozen, bytes_of
from benchmarks.study.learners import Reservoir
from benchmarks.study.streams import Example
from stream.plan import Forecast
from trainers.window import FamilySpec, LearnSpec


@final
class Coreset:
    """A belief that is handed on, the texts that are kept out of it, and the copy that has learned both."""

    def __init__(self, frozen: Frozen, family: FamilySpec, learn: LearnSpec, *, seed: int, size: int) -> None:
        """Start from the base prior with nothing kept."""
        self._chain, self._family, self._learn = Chain(frozen, seed), family, learn
        self._kept = Reservoir(size, seed)
        self.handed_on, self.copy = Belief(), Belief()

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the copy with the draws of the predictive."""
        return self._chain.asked(self.copy, texts, self._family, self._learn)

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the copy's mean."""
        return self._chain.asked(self.copy, texts, self._family, replace(self._learn, draws=0))

    def learn(self, window: Sequence[Example]) -> None:
        """Choose what is kept, learn what is not, and make the copy anew."""
        there = (*self._kept.held, *window)
        self._kept.offer(window)
        given_up = without(there, self._kept.held)
        self.handed_on = self._chain.learned(self.handed_on, given_up, self._family, self._learn)
        whole = replace(self._learn, beta=1.0)
        self.copy = self._chain.learned(self.handed_on, self._kept.held, self._family, whole)

    def carried(self) -> int:
        """Count the belief's bytes and the kept texts'; the copy can be made of both."""
        return bytes_of(self.handed_on.tensors) + sum(len(e.text.encode()) for e in self._kept.held)


def without(there: Sequence[Example], kept: Sequence[Example]) -> list[Example]:
    """Return what is there but for what is kept, each as often as it came."""
    left, out = Counter(kept), []
    for example in there:
        if left[example]:
            left[example] -= 1
        else:
            out.append(example)
    return out
