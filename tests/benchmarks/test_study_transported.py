"""What was counted goes where its features went, and is trusted as far as the map can be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.study.heads import Counting, Lda
from benchmarks.study.streams import Example
from benchmarks.study.transported import Carried, Map, Moving, Transported, fitted, moved
from posterior import moments
from tests.benchmarks.test_study_heads import D, features, window

TURN = torch.eye(D, dtype=torch.float64) + 0.3 * torch.randn(
    D, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64
)
SHIFT = torch.linspace(-2, 2, D, dtype=torch.float64)


def points(count: int, *, seed: int, wide: int = D) -> Tensor:
    """Return normal points, whose coordinates beyond the first `wide` are 0."""
    drawn = torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn[:, wide:] = 0
    return drawn


def counted(x: Tensor, truth: Tensor, classes: int) -> Carried:
    head = Moving()
    head.count(x, truth, classes)
    assert head.state is not None
    return head.state


def test_what_did_not_move_stays() -> None:
    x, truth = (
        features([f"{c} {n}" for c in range(3) for n in range(20)]),
        torch.arange(3).repeat_interleave(20),
    )
    state = counted(x, truth, 3)
    after = moved(state, fitted(points(50, seed=2), points(50, seed=2)), [0])
    for name in ("count", "mean", "scatter"):
        torch.testing.assert_close(getattr(after.seen, name), getattr(state.seen, name))
    torch.testing.assert_close(after.centre, state.centre)


@pytest.mark.parametrize(("noise", "apart", "share"), [(0.0, 0.02, 0.01), (1.0, 0.3, 0.1)])
def test_an_affine_drift_is_found_and_moments_follow_it(noise: float, apart: float, share: float) -> None:
    def drifted(x: Tensor, seed: int) -> Tensor:
        return x @ TURN.T + SHIFT + noise * points(len(x), seed=seed)

    seen = features([f"{c} {n}" for c in range(3) for n in range(200)])
    truth = torch.arange(3).repeat_interleave(200)
    texts = features([f"{c} {n}" for c in range(D) for n in range(300, 700)])
    after = moved(counted(seen, truth, 3), fitted(texts, drifted(texts, 8)), [1, 2]).seen
    there = moments.moments(drifted(seen, 9), truth)
    torch.testing.assert_close(after.mean, there.mean, atol=apart, rtol=0)
    torch.testing.assert_close(after.scatter, there.scatter, atol=share * float(there.scatter.max()), rtol=0)
    if not noise:
        torch.testing.assert_close(after.count, there.count, atol=1.0, rtol=0)


def test_what_the_map_leaves_is_what_it_would_have_missed_of_texts_it_had_not_seen() -> None:
    old = points(12, seed=3)
    new = old @ TURN.T + SHIFT + 0.5 * points(12, seed=4)
    by = fitted(old, new)
    held = old - old.mean(dim=0)
    ridge = float((by.precision - held.T @ held)[0, 0])
    errors = []
    for i in range(len(old)):
        x, y = (torch.cat([part[:i], part[i + 1 :]]) for part in (old, new))
        start, shift = x.mean(dim=0), (y - x).mean(dim=0)
        a = (x - start).T @ (x - start) + ridge * torch.eye(D, dtype=torch.float64)
        step = torch.linalg.solve(a, (x - start).T @ (y - x - shift)).T
        errors.append(new[i] - old[i] - shift - step @ (old[i] - start))
    missed = torch.stack(errors)
    torch.testing.assert_close(by.rest, missed.T @ missed / len(old))


def noisy(wide: int) -> Map:
    """Return the map of texts that span the first `wide` directions, and do not move by it alone."""
    old = points(400, seed=5, wide=wide)
    return fitted(old, old @ TURN.T + 0.3 * points(400, seed=6))


def test_counts_shrink_for_classes_outside_of_what_the_window_spans_and_no_others() -> None:
    centres = torch.zeros(3, D, dtype=torch.float64)
    centres[1, 0], centres[2, D - 1] = 1.0, 4.0  # inside the span, and where the window has no text
    x = torch.cat([centre + points(40, seed=7 + k) for k, centre in enumerate(centres)])
    state = counted(x, torch.arange(3).repeat_interleave(40), 3)
    apart = moved(state, noisy(3), [0])
    held, inside, outside = apart.seen.count.tolist()
    assert held == 40, "the window shows where it is"
    assert 36 < inside < 40
    assert outside < 30
    shown = moved(state, noisy(3), [0, 2]).seen.count.tolist()
    assert shown[2] == 40
    spanned = moved(state, noisy(D), [0]).seen.count.tolist()
    assert spanned[2] > 34, "the same class, where the window does have texts in its direction"
    torch.testing.assert_close(apart.often, state.often)


def test_standing_still_it_is_the_head_that_it_is_compared_with() -> None:
    ours, theirs = Counting(features, Moving()), Counting(features, Lda())
    for classes in ([0, 1], [2, 1]):
        ours.learn(window(classes, range(30)))
        theirs.learn(window(classes, range(30)))
    asked = [f"{c} {n}" for c in range(3) for n in range(100, 105)]
    for mine, other in zip(ours.foretell(asked), theirs.foretell(asked), strict=True):
        assert mine == pytest.approx(other)


class Turning:
    """Adapters whose features are turned by every window they learn."""

    def __init__(self) -> None:
        self._turn = torch.eye(D, dtype=torch.float64)

    def learn(self, window: Sequence[Example]) -> None:
        assert window
        self._turn = TURN @ TURN @ self._turn

    def features(self, texts: Sequence[str]) -> Tensor:
        return features(texts) @ self._turn.T

    def carried(self) -> int:
        return 7


def test_classes_of_before_are_recognised_where_their_features_are_now() -> None:
    turning = Turning()
    learner = Transported(turning)
    left = Counting(turning.features, Lda())
    assert learner.foretell(["0 1"]) == [None]
    for classes in ([0, 1], [2, 3], [4, 5]):
        learner.learn(window(classes, range(40)))
        left.learn(window(classes, range(40)))
    asked = [f"{c} {n}" for c in range(6) for n in range(100, 120)]
    rights = []
    for head in (learner, left):
        said = [forecast for forecast in head.recall(asked) if forecast is not None]
        assert all(sum(one.values()) == pytest.approx(1) for one in said)
        guesses = [max(one, key=one.__getitem__) for one in said]
        rights.append(sum(g == f"class {t[0]}" for g, t in zip(guesses, asked, strict=True)))
    assert rights[0] > 0.9 * len(asked)
    assert rights[1] < 0.8 * len(asked)
    assert learner.carried() == 7 + 8 * (6 + 6 * D + D * D + 6 + D)
