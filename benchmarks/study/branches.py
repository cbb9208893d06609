"""Frozen branches: adapters learned on one window each and then frozen for good, a head on each, one pool.

Branch 0 is the frozen encoder. A window comes as a surprise where its events cost SURPRISE times as much, in
mean nats under the present pool, as earlier windows did on average (theirs one by one, each before it was
learned), and by more than two standard errors of its own mean, so that chance opens none where little is at
stake. Then a branch is opened: adapters start from the base, learn this window, and never change again.
Every branch has linear discriminant analysis on its features, which stand still; it counts every window from
its opening on, exactly, and foretells at the temperature best for those before.

    p_b(k | x) = p_0(k | x)                                           a class that b has never counted
    p_b(k | x) = (1 - sum of these) softmax of b's own scores         the classes it has
    p(k | x)   = sum_b w_b p_b(k | x)

so that a branch shares out only what branch 0 leaves to the classes that it knows, and classes from before
it was opened are always held by someone. Weights are those of an opinion pool (`posterior.pool`), earned by
what branches foretold of known classes; a new branch begins with one part in as many as there now are.

What it does not do: a first foretold window has none to be compared with, and opens nothing; nor does one
that holds a single class, from which adapters would learn nothing. A stream in which all windows are of new
classes is as surprised by one as by the other and opens none. The texts a branch was learned from are among
those its head counts, and lie further apart than later ones will; its temperature is to find that out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Protocol, final

import torch
from torch import Tensor

from benchmarks.study.heads import Counting, Features, Lda
from benchmarks.study.streams import Example
from posterior.panel import WORTH
from posterior.pool import even, reweighted
from priorflow.scores import chance
from stream.plan import Forecast

MOST: Final = 4  # branches, the frozen encoder among them
SURPRISE: Final = 1.1
_ERRORS: Final = 2.0  # standard errors


class Seeing(Protocol):
    """Adapters that have been frozen."""

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return what texts are to them, (n, d)."""
        ...

    def carried(self) -> int:
        """Return their bytes."""
        ...


Opens = Callable[[Sequence[Example]], Seeing]  # learns adapters on a window, from the base


@dataclass(frozen=True, slots=True)
class Branch:
    """A head on features that stand still, and the bytes of what makes them."""

    head: Counting
    adapters: int

    def carried(self) -> int:
        """Return the bytes of both."""
        return self.head.carried() + self.adapters


@final
class Branches:
    """The frozen encoder and what was opened beside it."""

    def __init__(self, frozen: Features, opens: Opens, *, pi_new: float) -> None:
        """Start with the frozen encoder; `pi_new` is what an event of an unknown class costs, as a chance."""
        self._opens, self._pi_new = opens, pi_new
        self.branches = [Branch(Counting(frozen, Lda()), 0)]
        self.weights = even(1)
        self._costs: list[float] = []

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        each = self._each(texts)
        return [mixed(said, self.weights) for said in each] if each else [None] * len(texts)

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Hear who foretold it, open a branch if nobody did, and count it into all."""
        each = self._each([e.text for e in window])
        if each and self._heard(window, each) and _opening(window, len(self.branches)):
            adapters = self._opens(window)
            self.branches.append(Branch(Counting(adapters.features, Lda()), adapters.carried()))
            self.weights = joined(self.weights)
        for branch in self.branches:
            branch.head.learn(window)

    def carried(self) -> int:
        """Count all branches, and the weights."""
        return sum(branch.carried() for branch in self.branches) + 8 * len(self.weights)

    def _each(self, texts: Sequence[str]) -> list[list[Forecast]]:
        """Return what every branch says, text by text; nothing while no class is known."""
        zero, *others = (branch.head.foretell(texts) for branch in self.branches)
        known = [said for said in zero if said is not None]
        columns = [known, *([filled(own or {}, z) for own, z in zip(o, known, strict=True)] for o in others)]
        return [list(row) for row in zip(*columns, strict=True)]

    def _heard(self, window: Sequence[Example], each: Sequence[Sequence[Forecast]]) -> bool:
        """Give weight to who foretold the window, and return whether it was a surprise."""
        told = [(mixed(said, self.weights), e.label) for said, e in zip(each, window, strict=True)]
        costs = [-math.log(chance(f, label, pi_new=self._pi_new)) for f, label in told]
        known = [
            [f[e.label] for f in said] for said, e in zip(each, window, strict=True) if e.label in said[0]
        ]
        said_of_truth = torch.tensor(known, dtype=torch.float64).reshape(-1, len(self.branches)).T
        self.weights = reweighted(self.weights, said_of_truth.log(), worth=WORTH)
        before, self._costs = self._costs, [*self._costs, fmean(costs)]
        return surprises(costs, before)


def surprises(costs: Sequence[float], before: Sequence[float]) -> bool:
    """Return whether a window's events cost more than earlier windows' means; never without earlier ones."""
    if not before or len(costs) == 1:
        return False
    cost, usual = fmean(costs), fmean(before)
    return cost > SURPRISE * usual and cost - usual > _ERRORS * stdev(costs) / math.sqrt(len(costs))


def _opening(window: Sequence[Example], branches: int) -> bool:
    return branches < MOST and len({e.label for e in window}) > 1


def joined(weights: Tensor) -> Tensor:
    """Return weights with one more branch, whose part is that of all if they were even."""
    more = len(weights) + 1
    return torch.cat([weights * (len(weights) / more), weights.new_full((1,), 1 / more)])


def filled(own: Forecast, zero: Forecast) -> Forecast:
    """Return what a branch says: of classes it has counted by itself, of all others as branch 0 does."""
    others = math.fsum(p for label, p in zero.items() if label not in own)
    return {label: (1 - others) * own[label] if label in own else p for label, p in zero.items()}


def mixed(said: Sequence[Forecast], weights: Tensor) -> Forecast:
    """Return the pool's forecast of one text."""
    parts = weights.tolist()
    return {label: math.fsum(w * f[label] for w, f in zip(parts, said, strict=True)) for label in said[0]}
