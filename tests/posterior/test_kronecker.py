"""What is the Kronecker family's own: both partial traces of all evidence are kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior.family import Slot
from posterior.gaussian_kron import GaussianKron
from posterior.kronecker import Kronecker, turned
from tests.posterior.cases import dense_kron

M, N, SD = 3, 4, 0.5
FAMILY = GaussianKron(sd_down=SD)
SLOT = Slot("q.A", (M, N), "down")


def roots(seed: int, count: int = 6) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, M, N, generator=rng)


def learned(state: Kronecker, rows: Tensor) -> Kronecker:
    prior = turned(state)
    return FAMILY.absorb(prior, prior, {"q.A": rows})[0].state


def start() -> Kronecker:
    return FAMILY.base((SLOT,), seed=1, centres={})


def known(state: Kronecker) -> Tensor:
    """Return what the belief knows beyond its base, (M, N, M, N)."""
    beyond = dense_kron(state).precision - SD**-2 * torch.eye(M * N).double()
    return beyond.reshape(M, N, M, N)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 16), cuts=st.lists(st.integers(1, 5), max_size=3, unique=True))
def test_both_partial_traces_are_those_of_all_evidence_in_any_windows(seed: int, cuts: list[int]) -> None:
    rows, state = roots(seed), start()
    for part in torch.tensor_split(rows, sorted(cuts)):
        state = learned(state, part)
    whole = torch.einsum("nij,nkl->ijkl", rows.double(), rows.double())
    for pattern in ("ijkj->ik", "ijil->jl"):
        torch.testing.assert_close(
            torch.einsum(pattern, known(state)), torch.einsum(pattern, whole), rtol=1e-4, atol=1e-3
        )


def test_evidence_that_is_a_product_is_kept_whole() -> None:
    """Every row of one set with every column of another: nothing is lost, so every move is charged right."""
    rng = torch.Generator().manual_seed(2)
    u, x = torch.randn(5, M, generator=rng), torch.randn(7, N, generator=rng)
    rows = torch.einsum("ai,bj->abij", u, x).reshape(-1, M, N)
    whole = torch.einsum("nij,nkl->ijkl", rows.double(), rows.double())
    torch.testing.assert_close(known(learned(start(), rows)), whole, rtol=1e-4, atol=1e-3)


def test_a_move_along_what_nothing_was_seen_of_costs_what_the_base_charges() -> None:
    """A site's inputs span a plane; along the others the belief is as wide as before."""
    rows = roots(3)
    rows[:, :, 2:] = 0.0
    prior = turned(learned(start(), rows))
    move = torch.zeros(M, N)
    move[:, 2:] = 0.3
    mean = {"q.A": prior.mean["q.A"] + move}
    shape = turned(Kronecker(mean, prior.log_sd, prior.left, prior.right))
    charged = float(FAMILY.kl(shape, prior))
    assert charged == pytest.approx(0.5 * float((move / SD).square().sum()), rel=1e-4)
    stiff = {"q.A": prior.mean["q.A"] + move.flip(1)}
    assert float(FAMILY.kl(turned(Kronecker(stiff, *_spread(prior.state))), prior)) > 2 * charged


def _spread(state: Kronecker) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    return dict(state.log_sd), dict(state.left), dict(state.right)
