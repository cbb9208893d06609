"""Heads on features that stand still: what they hold adds up exactly, whatever comes in between.

    lda      a Gaussian of each class, one covariance for all: log counts + log densities
    ranpac   ridge regression of the class on M random projections of the features, each cut off at 0:
             scores (G + r I)^-1 sum_n h_n y_n', G = sum_n h_n h_n', h = max(0, x P)

Both are tempered, for neither knows how sure it is: scores are divided by the temperature (and ridge
regression takes the r) that would have foretold the windows before best. Source of ranpac: McDonnell, Gong,
Parvaneh, Abbasnejad and van den Hengel, NeurIPS 2023, arXiv:2307.02251.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Final, Protocol, final

import torch
from torch import Tensor

from benchmarks.study.chain import Labels, bytes_of
from benchmarks.study.learners import Adapted
from benchmarks.study.streams import Example
from posterior import generative, moments
from posterior.sight import CLASS_WORTH, VARIANCE
from stream.plan import Forecast

Features = Callable[[Sequence[str]], Tensor]  # texts -> (n, d)

PROJECTIONS: Final = 1_000
RIDGES: Final = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


class Head(Protocol):
    """Counts features in, and scores classes."""

    @property
    def ways(self) -> Sequence[float]:
        """Its settings, of which earlier windows choose one."""
        ...

    @property
    def temperatures(self) -> Sequence[float]:
        """Its temperatures, of which earlier windows choose one."""
        ...

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Count a window in, `truth` (n,) being rows of so many classes."""
        ...

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return scores of the classes, (n, classes)."""
        ...

    def offsets(self) -> Tensor:
        """Return what is added to a class's scores however they are tempered, (classes,)."""
        ...

    def carried(self) -> int:
        """Return its bytes."""
        ...


@final
class Lda:
    """Linear discriminant analysis."""

    ways = (1.0,)
    temperatures = (1.0, 2.0, 4.0, 8.0, 16.0)

    def __init__(self) -> None:
        """Start without a class."""
        self._centre: Tensor | None = None
        self._seen: moments.Moments | None = None

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Add moments up."""
        self._centre = features.mean(dim=0) if self._centre is None else self._centre
        new = moments.moments(features, truth)
        self._seen = new if self._seen is None else moments.combine(self._seen, new)
        self._seen = moments.grow(self._seen, classes)

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return log densities."""
        assert self._centre is not None, "nothing was counted"
        assert self._seen is not None
        variance = torch.full_like(self._centre, VARIANCE)
        base = generative.base(self._centre, variance, worth=CLASS_WORTH, freedom=2.0 + len(self._centre))
        return way * generative.log_densities(generative.believe(base, self._seen), features)

    def offsets(self) -> Tensor:
        """Return log counts."""
        assert self._seen is not None, "nothing was counted"
        return (self._seen.count + 1).log()

    def carried(self) -> int:
        """Count the moments' bytes."""
        held = self._seen
        return 0 if held is None else bytes_of({k: getattr(held, k) for k in held.__dataclass_fields__})


@final
class RanPac:
    """Ridge regression on random projections."""

    ways = RIDGES
    temperatures = (0.02, 0.05, 0.1, 0.2, 0.5)

    def __init__(self, seed: int) -> None:
        """Draw the projections once the width of features is known."""
        self._seed = seed
        self._projected: Tensor | None = None
        self._gram = torch.zeros(PROJECTIONS, PROJECTIONS, dtype=torch.float64)
        self._sums = torch.zeros(PROJECTIONS, 0, dtype=torch.float64)

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Add up what ridge regression needs."""
        hidden = self._hidden(features)
        more = torch.zeros(PROJECTIONS, classes - self._sums.shape[1], dtype=torch.float64)
        onehot = torch.nn.functional.one_hot(truth, classes).double()
        self._gram = self._gram + hidden.T @ hidden
        self._sums = torch.cat([self._sums, more], dim=1) + hidden.T @ onehot

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return the regression's answers."""
        ridge = way * torch.eye(PROJECTIONS, dtype=torch.float64)
        weights: Tensor = torch.linalg.solve(self._gram + ridge, self._sums)
        return self._hidden(features) @ weights

    def offsets(self) -> Tensor:
        """Return nothing: how frequent a class is lies in the sums."""
        return torch.zeros(self._sums.shape[1], dtype=torch.float64)

    def carried(self) -> int:
        """Count the sums' bytes; projections come from a seed."""
        return bytes_of({"gram": self._gram, "sums": self._sums})

    def _hidden(self, features: Tensor) -> Tensor:
        if self._projected is None:
            noise = torch.Generator().manual_seed(self._seed)
            shape = (features.shape[1], PROJECTIONS)
            self._projected = torch.randn(shape, generator=noise, dtype=torch.float64) / shape[0] ** 0.5
        return (features @ self._projected).relu()


@final
class Counting:
    """A head beside features that stand still, its way and temperature chosen by the windows before."""

    def __init__(self, features: Features, head: Head) -> None:
        """Start without a class."""
        self._features, self._head = features, head
        self._labels: Labels = ()
        self._costs = dict.fromkeys(product(head.ways, head.temperatures), 0.0)

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        if not self._labels or not texts:
            return [None] * len(texts)
        way, temperature = min(self._costs, key=self._costs.__getitem__)
        scores = self._head.scores(self._features(texts).double(), way)
        said = torch.softmax(self._head.offsets() + scores / temperature, dim=-1)
        return [dict(zip(self._labels, row, strict=True)) for row in said.tolist()]

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Judge ways and temperatures by what the window's known classes cost, then count it in."""
        features = self._features([e.text for e in window]).double()
        if self._labels:
            self._judge(features, [e.label for e in window])
        self._labels = tuple(dict.fromkeys([*self._labels, *(e.label for e in window)]))
        truth = torch.tensor([self._labels.index(e.label) for e in window])
        self._head.count(features, truth, len(self._labels))

    def carried(self) -> int:
        """Count the head's bytes."""
        return self._head.carried()

    def _judge(self, features: Tensor, truth: Sequence[str]) -> None:
        known = [(i, self._labels.index(label)) for i, label in enumerate(truth) if label in self._labels]
        for way in self._head.ways:
            scores = self._head.scores(features, way)
            for temperature in self._head.temperatures:
                said = torch.log_softmax(self._head.offsets() + scores / temperature, dim=-1)
                self._costs[way, temperature] -= sum(float(said[i, k]) for i, k in known)


@final
class FirstWindow:
    """Adapters learned from the first window and never again, and a head on the features they give."""

    def __init__(self, adapted: Adapted, head: Head) -> None:
        """Start without a class."""
        self._adapted, self._counting, self._begun = adapted, Counting(adapted.features, head), False

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        return self._counting.foretell(texts)

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Adapt to the first; count every one in."""
        if not self._begun:
            self._adapted.learn(window)
        self._begun = True
        self._counting.learn(window)

    def carried(self) -> int:
        """Count adapters and head."""
        return self._adapted.carried() + self._counting.carried()
