"""What is the joint Gaussian's own: it charges for moves as the explicit curvature would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from posterior import lowrank
from posterior.family import Slot
from posterior.gaussian_lowrank import GaussianLowRank
from posterior.lowrank import Joint, LowRank, joint
from tests.posterior.cases import dense_lowrank

FEATURES, CLASSES, RANK = 12, 3, 8
SLOTS = (Slot("head", (CLASSES, FEATURES), "head"),)
FAMILY = GaussianLowRank(rank=RANK, sd_head=0.5)


def rows_of_a_softmax(count: int) -> Tensor:
    """Return every root of the GGN of a softmax regression, (count * K, K, F), in float64.

    Features of steeply falling scale, so that some directions are stiff and most are sloppy.
    """
    rng = torch.Generator().manual_seed(3)
    scale = 3.0 * 0.6 ** torch.arange(FEATURES).double()
    turn = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=rng, dtype=torch.float64))[0]
    x = (torch.randn(count, FEATURES, generator=rng, dtype=torch.float64) * scale) @ turn
    p = torch.softmax(x @ torch.randn(FEATURES, CLASSES, generator=rng, dtype=torch.float64), dim=1)
    root = torch.diag_embed(p.sqrt()) - p.unsqueeze(2) * p.sqrt().unsqueeze(1)
    return torch.einsum("nck,nf->nkcf", root, x).reshape(-1, CLASSES, FEATURES)


def learned(rows: Tensor) -> tuple[Joint, float]:
    prior = joint(FAMILY.base(SLOTS, seed=1, centres={}))
    return FAMILY.absorb(prior, prior, {"head": rows.float()})


def moved(belief: Joint, move: Tensor) -> float:
    """Return the nats charged for a move (P,) of the mean."""
    mean = {"head": belief.state.mean["head"].double() + move.reshape(CLASSES, FEATURES)}
    here = LowRank(mean, belief.state.log_sd, belief.state.factor)
    return float(lowrank.quadratic(here, belief))


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return rows_of_a_softmax(300)


def directions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, highest first, and eigenvectors of the explicit GGN in prior deviations."""
    whole = rows.flatten(1) * FAMILY.sd_head
    values, vectors = torch.linalg.eigh(whole.T @ whole)
    return values.flip(0), vectors.flip(1)


def explicit(rows: Tensor, move: Tensor) -> float:
    whole = rows.flatten(1)
    precision = whole.T @ whole + torch.eye(move.numel()).double() / FAMILY.sd_head**2
    return float(0.5 * move @ precision @ move)


def test_a_move_along_a_kept_direction_costs_what_the_curvature_says(rows: Tensor) -> None:
    belief, _ = learned(rows)
    _, vectors = directions(rows)
    for k in range(RANK):
        move = vectors[:, k] * FAMILY.sd_head
        assert moved(belief, move) == pytest.approx(explicit(rows, move), rel=0.1)


def test_a_move_along_the_first_dropped_direction_is_undercharged_by_its_eigenvalue_at_most(
    rows: Tensor,
) -> None:
    belief, _ = learned(rows)
    values, vectors = directions(rows)
    move = vectors[:, RANK] * FAMILY.sd_head
    missing = explicit(rows, move) - moved(belief, move)
    assert 0.0 <= missing <= 0.5 * float(values[RANK]) * (1 + 1e-3)


def test_what_was_dropped_is_reported_in_nats(rows: Tensor) -> None:
    _, dropped = learned(rows)
    values, _ = directions(rows)
    assert dropped == pytest.approx(float(0.5 * torch.log1p(values[RANK:].clamp_min(0)).sum()), rel=1e-3)
    assert learned(rows[:RANK])[1] == 0.0


def test_no_precision_is_invented(rows: Tensor) -> None:
    """Cut evidence is dropped: in no direction is more claimed than the explicit curvature says."""
    belief, _ = learned(rows)
    whole = rows.flatten(1)
    full = whole.T @ whole + torch.eye(whole.shape[1]).double() / FAMILY.sd_head**2
    surplus = torch.linalg.eigvalsh(dense_lowrank(belief.state).precision - full)
    assert float(surplus.max()) < 1e-4 * float(torch.linalg.eigvalsh(full).max())


def test_mean_field_undercharges_stiff_moves_and_overcharges_sloppy_ones(rows: Tensor) -> None:
    """The reason for this family: what a diagonal of the same curvature would charge."""
    belief, _ = learned(rows)
    _, vectors = directions(rows)
    diagonal = torch.diag(rows.flatten(1).square().sum(dim=0) + FAMILY.sd_head**-2)
    stiff, sloppy = vectors[:, 0] * FAMILY.sd_head, vectors[:, -1] * FAMILY.sd_head
    assert float(0.5 * stiff @ diagonal @ stiff) < 0.5 * moved(belief, stiff)
    assert float(0.5 * sloppy @ diagonal @ sloppy) > 3 * moved(belief, sloppy)


def test_windows_in_turn_are_kept_together(rows: Tensor) -> None:
    """Evidence of two windows is one curvature, up to what each cut says it dropped."""
    first, _ = learned(rows[:450])
    both, _ = FAMILY.absorb(first, first, {"head": rows[450:].float()})
    _, vectors = directions(rows)
    for k in range(3):
        move = vectors[:, k] * FAMILY.sd_head
        assert moved(both, move) == pytest.approx(explicit(rows, move), rel=0.1)


def test_a_belief_that_carries_no_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        GaussianLowRank(rank=0)
