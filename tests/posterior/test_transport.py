"""Moments follow features that move: exactly where the move is affine, and with honest doubt where not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior import generative
from posterior.family import NotFinite
from posterior.generative import believe, covariance, log_predictive
from posterior.moments import Moments, combine, moments, nothing
from posterior.transport import Shift, fit, leverage, move, transport
from tests.posterior.generative_cases import DIM, assert_identical, assert_same, normals, small_base, stream

seeds = st.integers(0, 1000)
BASE = small_base()


def affine(*, seed: int, dim: int = DIM) -> tuple[Tensor, Tensor]:
    return torch.eye(dim).double() + 0.3 * normals(dim, dim, seed=seed), normals(dim, seed=seed + 1)


def fitted(evidence: Moments, old: Tensor, new: Tensor, *, ridge: float = 1.0) -> Shift:
    return fit(believe(BASE, evidence), evidence, old, new, ridge=ridge)


@given(seed=seeds, n=st.integers(0, 30), ridge=st.floats(1e-3, 1e3))
def test_features_that_did_not_move_change_nothing(seed: int, n: int, ridge: float) -> None:
    """Bit for bit; and no pairs are no reason to move."""
    evidence = moments(*stream(30, seed=seed))
    old = stream(n, seed=seed + 1)[0]
    assert_identical(transport(BASE, evidence, old, old, ridge=ridge), evidence)


@given(seed=seeds)
@settings(max_examples=30)
def test_after_an_affine_move_the_evidence_is_that_of_the_moved_features(seed: int) -> None:
    x, y = stream(40, seed=seed)
    turn, offset = affine(seed=seed)
    pairs = stream(30, seed=seed + 7)[0]
    followed = transport(BASE, moments(x, y), pairs, pairs @ turn.T + offset, ridge=1e-9)
    assert_same(followed, moments(x @ turn.T + offset, y), rtol=1e-5)


def test_heads_moved_along_and_learned_anew_predict_the_same() -> None:
    """Also in the window that moved them: its own evidence comes on top, in its new features."""
    x, y = stream(60, seed=3)
    turn, offset = affine(seed=5)
    now = x @ turn.T + offset
    followed = transport(BASE, moments(x[:40], y[:40]), x[40:], now[40:], ridge=1e-9)
    both = combine(followed, moments(now[40:], y[40:]))
    anew = believe(BASE, moments(now, y))
    torch.testing.assert_close(
        log_predictive(believe(BASE, both), now), log_predictive(anew, now), rtol=1e-4, atol=1e-4
    )


@given(seed=seeds, n=st.integers(1, 12), noise=st.floats(0.0, 3.0), ridge=st.floats(1e-2, 100))
def test_counts_only_shrink_and_the_scatter_stays_positive(
    seed: int, n: int, noise: float, ridge: float
) -> None:
    evidence = moments(*stream(30, seed=seed))
    old = stream(n, seed=seed + 1)[0]
    turn, offset = affine(seed=seed)
    shift = fitted(evidence, old, old @ turn.T + offset + noise * normals(n, DIM, seed=seed), ridge=ridge)
    moved = move(BASE, evidence, shift)
    size = float(shift.residual.abs().max())
    assert float(torch.linalg.eigvalsh(shift.residual).min()) >= -1e-12 * size
    gained = moved.scatter - shift.linear @ evidence.scatter @ shift.linear.T
    torch.testing.assert_close(gained, 30 * shift.residual)
    assert bool((moved.count <= evidence.count).all())
    assert bool((moved.count > 0).all())
    assert torch.equal(moved.seen, evidence.seen)
    assert torch.equal(moved.firsts, evidence.firsts)
    assert bool(torch.isfinite(believe(BASE, moved).root).all())


def test_a_map_that_forgets_a_direction_leaves_a_positive_covariance() -> None:
    evidence = moments(*stream(30, seed=1))
    old = stream(30, seed=2)[0]
    new = old.clone()
    new[:, 0] = 0.0
    moved = transport(BASE, evidence, old, new, ridge=1e-9)
    assert float(torch.linalg.eigvalsh(moved.scatter).min()) < 1e-6
    assert float(torch.linalg.eigvalsh(covariance(believe(BASE, moved))).min()) > 1e-3


def test_a_heavy_ridge_is_the_identity_and_a_light_one_least_squares() -> None:
    evidence = moments(*stream(30, seed=1))
    old = stream(20, seed=2)[0]
    turn, offset = affine(seed=3)
    new = old @ turn.T + offset + 0.1 * normals(20, DIM, seed=4)
    heavy = fitted(evidence, old, new, ridge=1e12)
    torch.testing.assert_close(heavy.linear, torch.eye(DIM).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(heavy.offset, torch.zeros(DIM).double(), rtol=0, atol=1e-6)
    light = fitted(evidence, old, new, ridge=1e-9)
    lifted = torch.cat([old, torch.ones(20, 1)], dim=1)
    wanted = torch.linalg.lstsq(lifted, new).solution
    torch.testing.assert_close(light.linear, wanted[:-1].T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(light.offset, wanted[-1], rtol=1e-5, atol=1e-5)


def test_a_ridge_counts_features_that_did_not_move() -> None:
    """Unmoved pairs spread exactly as the head believes, r of them, do what a ridge of r does."""
    evidence = moments(*stream(30, seed=1))
    old, r = stream(8, seed=2)[0], 50
    new = old + normals(8, DIM, seed=3)
    b = believe(BASE, evidence)
    share = evidence.seen / evidence.seen.sum()
    centre = share @ b.mean
    second = covariance(b) + (share.unsqueeze(1) * (b.mean - centre)).T @ (b.mean - centre)
    raw = normals(r, DIM, seed=5)
    raw = raw - raw.mean(dim=0)
    white = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / r)).T
    still = centre + white @ torch.linalg.cholesky(second).T
    explicit = fitted(evidence, torch.cat([old, still]), torch.cat([new, still]), ridge=1e-10)
    ridged = fitted(evidence, old, new, ridge=float(r))
    torch.testing.assert_close(ridged.linear, explicit.linear)
    torch.testing.assert_close(ridged.offset, explicit.offset)


def test_every_pair_is_judged_by_the_map_fitted_without_it() -> None:
    evidence = moments(*stream(30, seed=1))
    old = stream(6, seed=2)[0]
    new = old + normals(6, DIM, seed=3)
    missed = []
    for i in range(6):
        others = torch.arange(6) != i
        s = fitted(evidence, old[others], new[others])
        missed.append(new[i] - (s.linear @ old[i] + s.offset))
    wanted = torch.stack(missed).T @ torch.stack(missed) / 6
    torch.testing.assert_close(fitted(evidence, old, new).residual, wanted)


def test_fewer_pairs_than_features_are_not_taken_for_a_map_without_residual() -> None:
    """In-sample, three pairs in eight dimensions fit anything."""
    base = small_base(8)
    evidence = moments(*stream(40, seed=1, dim=8))
    old = stream(3, seed=2, dim=8)[0]
    noise = normals(3, 8, seed=3)
    shift = fit(believe(base, evidence), evidence, old, old + noise, ridge=0.01)
    left = old + noise - (old @ shift.linear.T + shift.offset)
    assert float(left.square().sum()) < 0.01 * float(noise.square().sum())
    assert float(shift.residual.trace()) > 0.3 * float(noise.square().sum()) / 3


def test_leverage_is_the_variance_of_the_map() -> None:
    """Maps drawn from the ridge's own prior, N(0, R) times M^-1 / ridge, fitted from noisy pairs."""
    evidence = moments(*stream(30, seed=1))
    belief, ridge, maps = believe(BASE, evidence), 5.0, 3000
    old, points = stream(4, seed=2)[0], stream(3, seed=9)[0]
    nowhere = fit(belief, evidence, old[:0], old[:0], ridge=ridge)
    mix = torch.tensor([[0.3, 0.0, 0.0], [0.2, 0.5, 0.0], [-0.1, 0.3, 0.2]]).double()
    root = torch.linalg.inv(nowhere.root).T @ normals(maps, DIM + 1, DIM, seed=4) @ mix.T
    noise = normals(maps, 4, DIM, seed=5) @ mix.T
    wrong = []
    for slope, extra in zip(root, noise, strict=True):
        turn = torch.eye(DIM).double() + slope[:-1].T
        offset = slope[-1] - nowhere.centre @ slope[:-1]
        shift = fit(belief, evidence, old, old @ turn.T + offset + extra, ridge=ridge)
        wrong.append(points @ (turn - shift.linear).T + offset - shift.offset)
    errors = torch.stack(wrong)
    spread = errors.unsqueeze(-1) * errors.unsqueeze(-2)
    wanted = leverage(shift, points).view(-1, 1, 1) * (mix @ mix.T)
    assert bool(((spread.mean(dim=0) - wanted).abs() < 5 * spread.std(dim=0) / maps**0.5).all())


def test_what_a_count_says_is_the_doubt_of_the_moved_mean() -> None:
    """tr Sigma'^-1 (Sigma' / n_k + h R) = tr Sigma'^-1 (Sigma' / n)."""
    evidence = moments(*stream(200, seed=1))
    old = stream(5, seed=2)[0]
    shift = fitted(evidence, old, old + 0.5 * normals(5, DIM, seed=3))
    moved = move(BASE, evidence, shift)
    sigma = covariance(believe(BASE, replace(moved, count=evidence.count)))
    for k, h in enumerate(leverage(shift, evidence.mean).tolist()):
        wanted = sigma / evidence.count[k] + h * shift.residual
        found = sigma / moved.count[k]
        torch.testing.assert_close(
            torch.linalg.solve(sigma, found).trace(), torch.linalg.solve(sigma, wanted).trace()
        )


def test_a_class_far_from_the_window_loses_its_count_and_one_in_it_keeps_it() -> None:
    x, y = stream(80, seed=1)
    evidence = moments(x, y)
    held, _ = stream(80, seed=1)
    old = held[y == 0]
    far = evidence.mean.clone()
    far[1] = far[0] + 30 * (far[1] - far[0])
    evidence = replace(evidence, mean=far)
    new = old + 0.5 * normals(*old.shape, seed=3)
    kept = transport(BASE, evidence, old, new, ridge=1.0).count / evidence.count
    assert float(kept[0]) > 0.7
    assert float(kept[1]) < 0.5 * float(kept[0])


@given(seed=seeds, scale=st.lists(st.floats(0.01, 100), min_size=DIM, max_size=DIM))
@settings(max_examples=30)
def test_the_units_of_features_do_not_matter(seed: int, scale: list[float]) -> None:
    """Stretched by s and offset, heads, pairs and transported moments are the same in other units."""
    s, offset = torch.tensor(scale, dtype=torch.float64), normals(DIM, seed=seed)
    x, y = stream(30, seed=seed)
    old = stream(6, seed=seed + 1)[0]
    new = old + normals(6, DIM, seed=seed)
    base = replace(BASE, mean=BASE.mean * s + offset, variance=BASE.variance * s.square())
    here = transport(BASE, moments(x, y), old, new, ridge=2.0)
    there = transport(base, moments(x * s + offset, y), old * s + offset, new * s + offset, ridge=2.0)
    torch.testing.assert_close(there.count, here.count)
    torch.testing.assert_close((there.mean - offset) / s, here.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(there.scatter / torch.outer(s, s), here.scatter)


def test_without_pairs_the_leverage_of_a_typical_feature_is_the_dimension_over_the_ridge() -> None:
    """Over the head's own features: their second moments are the ridge's metric."""
    x, y = stream(3000, seed=1)
    shift = fitted(moments(x, y), x[:0], x[:0], ridge=7.0)
    assert float(leverage(shift, x).mean()) == pytest.approx((DIM + 1) / 7, rel=0.02)


def test_nothing_stays_nothing() -> None:
    old = stream(5, seed=0)[0]
    moved = transport(BASE, nothing(DIM), old, old + 1.0, ridge=1.0)
    assert_identical(moved, nothing(DIM))


def test_a_row_without_events_stays_empty() -> None:
    x, y = stream(30, seed=2)
    evidence = moments(x[y != 0], y[y != 0])
    moved = transport(BASE, evidence, x, x + 1.0, ridge=1.0)
    assert float(moved.count[0]) == float(moved.seen[0]) == 0.0
    assert moved.mean[0].tolist() == [0.0] * DIM


def test_many_dimensions_and_few_pairs_keep_a_head_that_predicts() -> None:
    x, y = stream(60, seed=3, dim=384)
    base = generative.base(torch.zeros(384), torch.ones(384))
    old = x[:20]
    moved = transport(base, moments(x, y), old, old + 0.1 * normals(20, 384, seed=1), ridge=10.0)
    log_p = log_predictive(believe(base, moved), old)
    assert log_p.argmax(dim=1).tolist() == y[:20].tolist()


@pytest.mark.parametrize("ridge", [0.0, -1.0, math.nan, math.inf])
def test_a_ridge_is_positive(ridge: float) -> None:
    x, y = stream(5, seed=0)
    with pytest.raises(ValueError, match="ridge"):
        transport(BASE, moments(x, y), x, x, ridge=ridge)


def test_a_feature_that_is_no_number_is_an_error() -> None:
    x, y = stream(5, seed=0)
    new = x.clone()
    new[0, 0] = math.inf
    with pytest.raises(NotFinite, match="new features"):
        transport(BASE, moments(x, y), x, new, ridge=1.0)
