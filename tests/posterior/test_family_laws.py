"""Laws that every family keeps. A family that needs an exemption says the interface is wrong."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior.families import STATES
from posterior.family import Facts, Family, state_of, tensors_of
from posterior.forgetting import BETA_GRID
from posterior.point import Point
from posterior.tensors import from_bytes, to_bytes
from tests.posterior.cases import FAMILIES, as_double, moved, normals, slots

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
seeds = st.integers(0, 2**20)


def same(a: Any, b: Any) -> bool:
    left, right = tensors_of(a), tensors_of(b)
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


@each_family
def test_the_same_noise_gives_the_same_draw_and_touches_nothing(family: Family[Any]) -> None:
    state = moved(family, family.base(slots(3), seed=1, centres={}), seed=2)
    before, world = to_bytes(tensors_of(state)), torch.get_rng_state()
    noise = normals(dict(family.noise(state)), 4, seed=3)
    one, two = family.sample(state, noise), family.sample(state, noise)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert set(one) == {slot.name for slot in slots(3)}
    assert to_bytes(tensors_of(state)) == before
    assert torch.equal(torch.get_rng_state(), world)


@each_family
def test_the_mean_of_many_draws_approaches_the_mean(family: Family[Any]) -> None:
    state = moved(family, family.base(slots(3), seed=1, centres={}), seed=2)
    draw = family.sample(state, normals(dict(family.noise(state)), 4000, seed=3))
    for name, centre in family.mean(state).items():
        spread = draw[name].std(dim=0, correction=0).max() if draw[name].shape[0] > 1 else 0.0
        error = (draw[name].mean(dim=0) - centre[0]).abs().max()
        assert float(error) <= 6 * float(spread) / 4000**0.5 + 1e-6


@each_family
def test_state_to_bytes_to_state_is_exact(family: Family[Any]) -> None:
    state = moved(family, family.base(slots(3), seed=1, centres={}), seed=2)
    kind = "point" if isinstance(family, Point) else "blob"
    data = to_bytes(tensors_of(state))
    back = state_of(*STATES[kind], from_bytes(data))
    assert to_bytes(tensors_of(back)) == data


@each_family
def test_coordinates_at_the_origin_are_the_prior(family: Family[Any]) -> None:
    prior = moved(family, family.base(slots(3), seed=1, centres={}), seed=2)
    assert same(family.place(prior, family.origin(prior)), prior)


@each_family
@settings(max_examples=20, deadline=None)
@given(seed=seeds, size=st.sampled_from([1e-4, 1e-2, 0.5, 2.0]))
def test_kl_is_never_negative_and_zero_only_at_equality(family: Family[Any], seed: int, size: float) -> None:
    prior = moved(family, family.base(slots(2), seed=1, centres={}), seed=seed)
    other = moved(family, prior, seed=seed + 1, size=size)
    assert float(family.kl(prior, prior)) == 0.0
    if family.noise(prior):
        assert float(family.kl(other, prior)) > 0.0


@pytest.mark.parametrize("name", [k for k, f in FAMILIES.items() if not isinstance(f, Point)])
def test_kl_agrees_with_monte_carlo_in_float64(name: str) -> None:
    family = FAMILIES[name]
    prior = as_double(family, moved(family, family.base(slots(2), seed=1, centres={}), seed=2))
    other = as_double(family, moved(family, prior, seed=3, size=0.3))
    rng = torch.Generator().manual_seed(0)
    values = torch.zeros(20_000, dtype=torch.float64)
    for k in other.mean:
        noise = torch.randn((20_000, *other.mean[k].shape), generator=rng, dtype=torch.float64)
        x = other.mean[k] + other.log_sd[k].exp() * noise
        log_q = -0.5 * noise.square() - other.log_sd[k]
        log_p = -0.5 * ((x - prior.mean[k]) / prior.log_sd[k].exp()).square() - prior.log_sd[k]
        values += (log_q - log_p).flatten(1).sum(dim=1)
    error = values.std() / 20_000**0.5
    assert abs(float(values.mean() - family.kl(other, prior))) < 5 * float(error)


@each_family
@pytest.mark.parametrize("value", [-40.0, -5.0, 0.0, 5.0, 20.0])
def test_kl_and_its_gradient_are_finite_far_out(family: Family[Any], value: float) -> None:
    prior = family.base(slots(2), seed=1, centres={})
    at = {k: torch.full_like(v, value).requires_grad_() for k, v in family.origin(prior).items()}
    kl = family.kl(family.place(prior, at), prior)
    assert bool(torch.isfinite(kl))
    if kl.requires_grad:
        for name, gradient in zip(
            at, torch.autograd.grad(kl, list(at.values()), allow_unused=True), strict=True
        ):
            assert gradient is None or bool(torch.isfinite(gradient).all()), name


@each_family
def test_remembering_everything_returns_the_state_itself(family: Family[Any]) -> None:
    base = family.base(slots(2), seed=1, centres={})
    settled = family.settle(moved(family, base, seed=2), Facts(classes_seen=2, window=0))
    assert same(family.forget(settled, base, beta=1.0), settled)


@pytest.mark.parametrize("name", ["blob", "blob, B frozen"])
def test_more_forgetting_moves_precision_monotonically_towards_the_base(name: str) -> None:
    family = FAMILIES[name]
    base = family.base(slots(2), seed=1, centres={})
    state = family.settle(moved(family, base, seed=2), Facts(classes_seen=2, window=0))
    gaps = []
    for beta in sorted(BETA_GRID, reverse=True):
        prior = family.forget(state, base, beta=beta)
        gap = torch.cat(
            [
                (torch.exp(-2 * prior.log_sd[k].double()) - torch.exp(-2 * base.log_sd[k].double()))
                .abs()
                .flatten()
                for k in state.mean
            ]
        )
        gaps.append(gap)
    for wider, narrower in itertools.pairwise(gaps):
        assert bool((narrower <= wider * (1 + 1e-4) + 1e-3).all())
    assert float(gaps[-1].max()) == 0.0


@each_family
def test_growing_the_head_leaves_old_rows_and_costs_nothing(family: Family[Any]) -> None:
    state = moved(family, family.base(slots(2), seed=1, centres={}), seed=2)
    base = family.base(slots(3), seed=1, centres={})
    grown = family.grow(state, base)
    prior = family.grow(state, base)
    assert float(family.kl(grown, prior)) == 0.0
    old, new = family.mean(state)["head"], family.mean(grown)["head"]
    assert torch.equal(new[:, :2], old)
    assert torch.equal(new[:, 2:], family.mean(base)["head"][:, 2:])
    assert torch.equal(family.mean(grown)["q.A"], family.mean(state)["q.A"])


@each_family
def test_the_base_of_old_slots_does_not_depend_on_new_ones(family: Family[Any]) -> None:
    few, many = family.base(slots(2), seed=7, centres={}), family.base(slots(5), seed=7, centres={})
    assert torch.equal(family.mean(few)["v.A"], family.mean(many)["v.A"])
    assert not torch.equal(family.mean(few)["v.A"], family.mean(few)["q.A"])
