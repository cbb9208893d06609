"""Heads that divide, on features that stand still: a linear probe fine-tuned on, and the same as a belief.

    softmax    p(k | x) = softmax_k(W [x, 1]); from yesterday's W a few steps of L-BFGS down
               sum_n -ln p(k_n | x_n) + r |W|^2 / 2, n being the events of this window alone
    laplace    `posterior.regression`: a Gaussian of W, each window's posterior the next one's prior

The probe is what is done where nobody thinks of priors. What it minimises has one minimum, wherever it
begins, so all that keeps earlier windows is that it stops early: after how many steps, and how tempered it
then foretells, is chosen by what earlier windows would have cost. The belief needs neither; of its two prior
deviations the one is heard that would have foretold earlier windows better.
"""

from __future__ import annotations

from typing import Any, Final, final

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from benchmarks.study.chain import bytes_of
from posterior import moments, regression
from posterior.regression import DEVIATIONS

RIDGE: Final = 1.0  # r, of features of unit mean square; the belief's narrow prior has 278, its wide one 69
STEPS: Final = (10, 3, 30)  # of L-BFGS a window; the first until a window has been foretold


@final
class Softmax:
    """Softmax regression by maximum a posteriori, warm-started window by window."""

    ways = tuple(map(float, STEPS))
    temperatures = (1.0, 2.0, 4.0, 8.0)

    def __init__(self) -> None:
        """Start without a class."""
        self._weights: dict[float, Tensor] = {}

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Go on from yesterday's weights; those of new classes begin at 0."""
        nothing = torch.zeros(0, features.shape[1] + 1, dtype=torch.float64)
        held = {way: self._weights.get(way, nothing) for way in self.ways}
        grown = {way: pad(w, (0, 0, 0, classes - len(w))) for way, w in held.items()}
        self._weights = {way: descended(w, features, truth, steps=int(way)) for way, w in grown.items()}

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return logits."""
        return _with_one(features) @ self._weights[way].T

    def offsets(self) -> Tensor:
        """Return nothing: how frequent a class is lies in its intercept."""
        return torch.zeros(len(self._weights[self.ways[0]]), dtype=torch.float64)

    def carried(self) -> int:
        """Count the weights' bytes, of every way that may yet be chosen."""
        return bytes_of({str(way): w for way, w in self._weights.items()})


@final
class Laplace:
    """The same head as a Gaussian belief about its weights: the softmax regression of the panel, alone."""

    ways = DEVIATIONS
    temperatures = (1.0,)  # how sure it may be follows from what it has seen

    def __init__(self) -> None:
        """Start without a class."""
        self._seen: moments.Moments | None = None
        self._state: regression.Regression | None = None

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Learn under the prior that earlier windows left, then add this one's moments."""
        before = self._seen or moments.nothing(features.shape[1])
        state = regression.grow(self._state or regression.nothing(features.shape[1]), classes)
        self._state = regression.learned(regression.factored(state, before), features, truth)
        self._seen = moments.grow(moments.combine(before, moments.moments(features, truth)), classes)

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return log p(k | x)."""
        assert self._state is not None, "nothing was counted"
        assert self._seen is not None
        belief = regression.factored(self._state, self._seen)
        return regression.log_probabilities(belief, features)[DEVIATIONS.index(way)]

    def offsets(self) -> Tensor:
        """Return nothing: how frequent a class is lies in its intercept."""
        assert self._seen is not None, "nothing was counted"
        return torch.zeros_like(self._seen.count)

    def carried(self) -> int:
        """Count the bytes of weights, their curvature and the moments."""
        return sum(bytes_of(vars(part)) for part in (self._seen, self._state) if part is not None)


def descended(weights: Tensor, features: Tensor, truth: Tensor, *, steps: int) -> Tensor:
    """Return weights (K, d + 1) after so many steps down the window's nats and the ridge."""
    x, moved = _with_one(features), weights.clone()
    right = one_hot(truth, len(weights)).double()
    optimiser: Any = torch.optim.LBFGS(
        [moved], max_iter=steps, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    # The gradient is written out: callers may have switched autograd off.
    def nats() -> Tensor:
        log_p = torch.log_softmax(x @ moved.T, dim=1)
        moved.grad = (log_p.exp() - right).T @ x + RIDGE * moved
        return 0.5 * RIDGE * moved.square().sum() - (right * log_p).sum()

    optimiser.step(nats)
    return moved.detach()


def _with_one(features: Tensor) -> Tensor:
    return pad(features.double(), (0, 1), value=1.0)
