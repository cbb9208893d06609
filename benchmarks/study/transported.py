"""Class means that move with the features: moments of before, taken along as adapters move.

What a Gaussian head counted was counted on features that the next window's learning moves. The window's own
texts show how: x before, y after it was learned, n of each. One affine map is fitted to them, drawn to the
identity, and what was counted goes through it:

    y = x + (T - I)(x - x_mean) + shift + e        e ~ N(0, R)
    T - I = D'X A^-1     A = X'X + r v I           X = x - x_mean, D = (y - x) - shift, v = |X|^2 / (n d)
    mean_k <- T mean_k + b        S <- T S T' + N R        b = y_mean - T x_mean

N being the degrees of freedom that S has. r, the ridge, is so many events' worth of mean variance; of a few
the one is taken that foretells each text's move best from the others', and R is the covariance of these
errors, in closed form: residuals over 1 - leverage. Residuals as they are would be far too small, for a
window has about as many texts as features.

A class that the window holds is shown where it is. Of another we have the map's word, and the map knows
little where the window has no text. As a belief about T with prior variance R / (r v), the moved mean has
covariance c_k R on top of the Sigma / n_k that it had, c_k being the leverage of its old place:

    c_k = 1/n + (mean_k - x_mean)' A^-1 (mean_k - x_mean)       n_k <- n_k / (1 + n_k c_k rho)

with rho = tr R / tr(S / N), the unforeseen part of the moves in variances of a class. That is as many events
as would leave the mean as uncertain: the t density of the class gets wider by it, and its next texts count
for more. Within the span of the window's texts c_k is of the order of 1/n; the further outside, the nearer
it comes to the squared distance over r v, where all that is known of the map is that it was to be the
identity. Where nothing moved R = 0, and no count shrinks. How frequent classes are, and how many events S is
of, is not touched.

Where it is not exact: features do not move by an affine map, e depends on the class, and of c_k R only the
trace is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, final

import torch
from torch import Tensor

from benchmarks.study.chain import bytes_of
from benchmarks.study.heads import Counting
from benchmarks.study.streams import Example
from posterior import generative, moments
from posterior.moments import Moments
from posterior.sight import CLASS_WORTH, VARIANCE
from stream.plan import Forecast

RIDGES: Final = (1.0, 10.0, 100.0, 1_000.0)  # r, events


@dataclass(frozen=True)
class Map:
    """How features moved, all float64.

    turn (d, d), T · start (d,), x_mean · end (d,), y_mean · rest (d, d), R · precision (d, d), A ·
    events, n.
    """

    turn: Tensor
    start: Tensor
    end: Tensor
    rest: Tensor
    precision: Tensor
    events: int

    def of(self, points: Tensor) -> Tensor:
        """Return where points (..., d) have moved."""
        return (points - self.start) @ self.turn.T + self.end

    def leverage(self, points: Tensor) -> Tensor:
        """Return c of points (k, d), (k,): how far outside of what the map was fitted to they lie."""
        apart = points - self.start
        solved: Tensor = torch.linalg.solve(self.precision, apart.T)
        return 1 / self.events + (apart * solved.T).sum(dim=1)


def fitted(old: Tensor, new: Tensor) -> Map:
    """Return the map of features (n, d) to what they are now, n > 1."""
    x, move = old.double(), new.double() - old.double()
    start, shift = x.mean(dim=0), move.mean(dim=0)
    held, variance = x - start, (x - start).square().mean().clamp(min=1e-12)
    gram, identity = held.T @ held, torch.eye(x.shape[1], dtype=torch.float64)
    found = []
    for ridge in RIDGES:
        precision = gram + ridge * variance * identity
        gain = torch.linalg.solve(precision, held.T)
        step = (gain @ (move - shift)).T
        leverage = 1 / len(x) + (held * gain.T).sum(dim=1)
        error = (move - shift - held @ step.T) / (1 - leverage).unsqueeze(1)
        rest = error.T @ error / len(x)
        found.append(Map(identity + step, start, start + shift, rest, precision, len(x)))
    return min(found, key=lambda one: float(one.rest.trace()))


@dataclass(frozen=True)
class Carried:
    """What a head has counted, where features now are.

    seen: `Moments` whose counts are what the means are worth · often (K,), events of each class · centre
    (d,), where classes are before they are seen.
    """

    seen: Moments
    often: Tensor
    centre: Tensor


def moved(state: Carried, by: Map, shown: Sequence[int]) -> Carried:
    """Return what was counted where features now are; `shown` are the rows of classes the window holds."""
    seen, degrees = state.seen, state.often.sum()
    scatter = by.turn @ seen.scatter @ by.turn.T + degrees * by.rest
    rho = by.rest.trace() * degrees / scatter.trace().clamp(min=1e-12)
    shrunk = seen.count / (1 + seen.count * by.leverage(seen.mean) * rho)
    shrunk[list(shown)] = seen.count[list(shown)]
    return Carried(Moments(shrunk, by.of(seen.mean), scatter), state.often, by.of(state.centre))


@final
class Moving:
    """Linear discriminant analysis whose moments can be moved; standing still it is `Lda`."""

    ways = (1.0,)
    temperatures = (1.0, 2.0, 4.0, 8.0, 16.0)

    def __init__(self) -> None:
        """Start without a class."""
        self.state: Carried | None = None

    def count(self, features: Tensor, truth: Tensor, classes: int) -> None:
        """Add moments up."""
        x = features.double()
        held = self.state or Carried(
            moments.nothing(x.shape[1]), torch.zeros(0, dtype=torch.float64), x.mean(dim=0)
        )
        seen = moments.grow(moments.combine(held.seen, moments.moments(x, truth)), classes)
        often = torch.bincount(truth, minlength=classes).double()
        often[: len(held.often)] += held.often
        self.state = Carried(seen, often, held.centre)

    def move(self, by: Map, shown: Sequence[int]) -> None:
        """Take what was counted along; `shown` as in `moved`."""
        if self.state is not None:
            self.state = moved(self.state, by, [row for row in shown if row < len(self.state.often)])

    def scores(self, features: Tensor, way: float) -> Tensor:
        """Return log densities; what means are worth and what the covariance is worth are two things."""
        assert self.state is not None, "nothing was counted"
        held, d = self.state, len(self.state.centre)
        variance = torch.full_like(held.centre, VARIANCE)
        base = generative.base(held.centre, variance, worth=CLASS_WORTH, freedom=2.0 + d)
        belief = generative.believe(base, held.seen)
        whole = replace(belief, freedom=base.freedom + d - 1 + held.often.sum())
        return way * generative.log_densities(whole, features)

    def offsets(self) -> Tensor:
        """Return log counts, of events."""
        assert self.state is not None, "nothing was counted"
        return (self.state.often + 1).log()

    def carried(self) -> int:
        """Count the bytes of moments, frequencies and centre."""
        held = self.state
        return 0 if held is None else bytes_of({**vars(held.seen), "often": held.often, "at": held.centre})


class Adapting(Protocol):
    """Adapters that learn window by window, and what they make of texts."""

    def learn(self, window: Sequence[Example]) -> None:
        """Learn a window."""
        ...

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return what texts are to them now, (n, d)."""
        ...

    def carried(self) -> int:
        """Return their bytes."""
        ...


@final
class Transported:
    """Adapters learned in sequence and a head on their features that moves with them.

    But for that it is `Headed` without `anew`: temperatures are judged on the window's features once it was
    learned.
    """

    def __init__(self, adapted: Adapting) -> None:
        """Start without a class."""
        self._adapted, self._head = adapted, Moving()
        self._counting = Counting(adapted.features, self._head)
        self._rows: dict[str, int] = {}

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        return self._counting.foretell(texts)

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Adapt, see how far that moved the window's texts, move the head as far, then count the window."""
        texts = [e.text for e in window]
        before = self._adapted.features(texts) if self._rows else None
        self._adapted.learn(window)
        for example in window:
            self._rows.setdefault(example.label, len(self._rows))
        if before is not None:
            shown = sorted({self._rows[e.label] for e in window})
            self._head.move(fitted(before, self._adapted.features(texts)), shown)
        self._counting.learn(window)

    def carried(self) -> int:
        """Count adapters and head."""
        return self._adapted.carried() + self._counting.carried()
