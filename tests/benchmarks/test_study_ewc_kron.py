"""A penalty with Kronecker factors is the quadratic form that it says, over all windows so far."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.study.ewc_kron import EwcKron, Factored
from posterior.family import Slot

M, N = 3, 4


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def base(family: EwcKron, rows: int, columns: int = N) -> Factored:
    return family.base([Slot("head", (rows, columns), "head")], seed=1, centres={})


def informed(family: EwcKron, prior: Factored, *gradients: Tensor) -> Factored:
    for rows in gradients:
        prior, _ = family.absorb(prior, prior, {"head": rows.float()})
    return prior


def charge(family: EwcKron, prior: Factored, moved: Tensor) -> float:
    return float(family.kl(Factored({"head": prior.point["head"] + moved}, {}, {}), prior))


def quadratic(precision: Tensor, moved: Tensor) -> float:
    return float(0.5 * moved.flatten() @ precision @ moved.flatten())


def test_gradients_whose_sides_are_independent_are_charged_as_by_the_full_fisher() -> None:
    """Every output gradient with every input: a Kronecker product, here written out densely."""
    family, moved = EwcKron(strength=2.0), normal(M, N, seed=3)
    outs, ins = normal(5, M, seed=1), normal(6, N, seed=2)
    rows = torch.einsum("ai,bj->abij", outs, ins).reshape(-1, M, N)
    flat = rows.flatten(1)
    found = charge(family, informed(family, base(family, M), rows), moved)
    assert found == pytest.approx(2.0 * quadratic(flat.T @ flat, moved), rel=1e-5)


def test_windows_add_up_in_either_factor_and_the_scale_is_exact() -> None:
    family, first, then = EwcKron(), normal(7, M, N, seed=1), normal(9, M, N, seed=2)
    prior, rows = informed(family, base(family, M), first, then), torch.cat([first, then])
    of_rows = torch.stack([g @ g.T for g in rows]).sum(dim=0)
    of_columns = torch.stack([g.T @ g for g in rows]).sum(dim=0)
    precision, moved = torch.kron(of_rows, of_columns) / of_rows.trace(), normal(M, N, seed=3)
    assert charge(family, prior, moved) == pytest.approx(quadratic(precision, moved), rel=1e-5)
    assert float(precision.trace()) == pytest.approx(float(rows.square().sum()))


def test_a_slot_of_one_row_has_the_full_fisher() -> None:
    family, rows, moved = EwcKron(), normal(5, 1, N, seed=1), normal(1, N, seed=2)
    flat = rows.flatten(1)
    found = charge(family, informed(family, base(family, 1), rows), moved)
    assert found == pytest.approx(quadratic(flat.T @ flat, moved), rel=1e-5)


def test_of_the_base_nothing_is_known_and_new_rows_are_free() -> None:
    family, moved = EwcKron(), torch.zeros(M + 1, N, dtype=torch.float64)
    moved[M] = 1.0
    assert charge(family, base(family, M), torch.ones(M, N)) == 0.0
    prior = family.grow(informed(family, base(family, M), normal(5, M, N, seed=1)), base(family, M + 1))
    assert charge(family, prior, moved) == 0.0
    assert charge(family, prior, moved + 1.0) > 0.0
