"""Laws that every family keeps. A family that needs an exemption says the interface is wrong."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior.families import FAMILIES
from posterior.family import Draw, tensors_of
from posterior.forgetting import BETA_GRID
from posterior.tensors import from_bytes, to_bytes
from tests.posterior.cases import (
    CASES,
    Case,
    in_double,
    learned,
    log_ratio,
    log_ratio_beside,
    moved,
    names,
    naturals,
    normals,
    slots,
)

each_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
seeds = st.integers(0, 2**20)


def same(a: Any, b: Any) -> bool:
    left, right = tensors_of(a), tensors_of(b)
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def base(case: Case, classes: int, *, seed: int = 1) -> Any:
    return case.family.base(slots(classes), seed=seed, centres={})


def weights(draw: Draw) -> Draw:
    """Return a draw without the notes to sites that may come with it."""
    return {k: v for k, v in draw.items() if not k.startswith("~")}


@each_family
def test_the_same_noise_gives_the_same_draw_and_touches_nothing(case: Case) -> None:
    family, state = case.family, learned(case, base(case, 3), seed=2)
    before, world = to_bytes(tensors_of(state)), torch.get_rng_state()
    opened = family.open(state, case.tasks)
    noise, tasks = normals(family.noise(opened), 4, seed=3), [case.tasks[0]] * 4
    kept = {k: v.clone() for k, v in noise.items()}
    one, two = family.sample(opened, noise, tasks), family.sample(opened, noise, tasks)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert sorted(weights(one)) == sorted(names(slots(3)))
    assert all(torch.equal(noise[k], kept[k]) for k in noise)
    assert to_bytes(tensors_of(state)) == before
    assert torch.equal(torch.get_rng_state(), world)


@each_family
def test_one_draw_for_all_is_each_one_s_draw(case: Case) -> None:
    """Noise of one row stands for the same row given to every sequence."""
    family = case.family
    opened = family.open(learned(case, base(case, 3), seed=2), case.tasks)
    noise, tasks = normals(family.noise(opened), 1, seed=3), [case.tasks[-1]] * 3
    shared = family.sample(opened, noise, tasks)
    each = family.sample(opened, {k: v.expand(3, *v.shape[1:]) for k, v in noise.items()}, tasks)
    for name, rows in each.items():
        torch.testing.assert_close(shared[name].expand_as(rows), rows)


@each_family
def test_the_mean_of_many_draws_approaches_the_mean(case: Case) -> None:
    family = case.family
    opened = family.open(learned(case, base(case, 3), seed=2), case.tasks)
    tasks = [case.tasks[0]] * 4000
    draw = family.sample(opened, normals(family.noise(opened), 4000, seed=3), tasks)
    for name, centre in family.mean(opened, tasks[:1]).items():
        spread = draw[name].std(dim=0, correction=0).max() if draw[name].shape[0] > 1 else 0.0
        error = (draw[name].mean(dim=0) - centre[0]).abs().max()
        assert float(error) <= 6 * float(spread) / 4000**0.5 + 1e-6


@each_family
def test_draws_have_the_covariance_that_the_belief_claims(case: Case) -> None:
    family, state = case.family, learned(case, base(case, 2), seed=2)
    dense = case.dense(state)
    if not dense.precision.numel():
        assert not family.noise(family.open(state, case.tasks))
        return
    opened = family.open(state, case.tasks)
    draw = family.sample(opened, normals(family.noise(opened), 20_000, seed=3), [case.tasks[0]] * 20_000)
    random = [k for k in sorted(weights(draw)) if draw[k].shape[0] > 1]
    x = torch.cat([draw[k].double().flatten(1) for k in random], dim=1)
    # Whitened by what is claimed, the sample covariance is the identity up to Monte Carlo error.
    z = (x - dense.mean) @ torch.linalg.cholesky(dense.precision)
    found, fourth = z.T @ z / len(z), z.square().T @ z.square() / len(z)
    error = ((fourth - found.square()) / len(z)).sqrt()  # from the draws: they need not be Gaussian
    assert bool(((found - torch.eye(len(found)).double()).abs() < 6 * error).all())


@each_family
def test_state_to_bytes_to_state_is_exact(case: Case) -> None:
    state = learned(case, base(case, 3), seed=2)
    data = to_bytes(tensors_of(state))
    assert to_bytes(tensors_of(case.family.restore(from_bytes(data)))) == data


@each_family
def test_coordinates_at_the_origin_are_the_prior(case: Case) -> None:
    family = case.family
    prior = family.open(learned(case, base(case, 3), seed=2), case.tasks)
    at = family.place(prior, family.origin(prior), shape=prior)
    assert float(family.kl(at, prior)) == 0.0
    noise, tasks = normals(family.noise(prior), 2, seed=1), [case.tasks[0]] * 2
    ours, theirs = family.sample(at, noise, tasks), family.sample(prior, noise, tasks)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


@each_family
@settings(max_examples=20, deadline=None)
@given(seed=seeds, size=st.sampled_from([1e-4, 1e-2, 0.5, 2.0]))
def test_kl_is_never_negative_and_zero_only_at_equality(case: Case, seed: int, size: float) -> None:
    family, state = case.family, learned(case, base(case, 2), seed=seed)
    prior, other = family.open(state, case.tasks), moved(case, state, seed=seed + 1, size=size)
    assert float(family.kl(prior, prior)) == 0.0
    if family.noise(prior):
        assert float(family.kl(other, prior)) > 0.0


@each_family
def test_kl_agrees_with_monte_carlo_in_float64(case: Case) -> None:
    state = learned(case, base(case, 2), seed=2)
    state = in_double(case, state, tensors_of(state))
    prior = case.family.open(state, case.tasks)
    other = moved(case, state, seed=3, size=0.3)
    kl = float(case.family.kl(other, prior))
    settled = case.settled(state, prior, other)
    p, q = case.believed(state), case.believed(settled)
    if not q.precision.numel():
        assert kl == 0.0  # a point is charged nothing
        return
    values = log_ratio(q, p, 20_000, seed=0)
    values = values + log_ratio_beside(case.beside(settled), case.beside(state), 20_000, seed=1)
    assert abs(float(values.mean()) - kl) < 5 * float(values.std()) / 20_000**0.5 + 1e-5 * kl


@each_family
@pytest.mark.parametrize("value", [-40.0, -5.0, 0.0, 5.0, 20.0])
def test_kl_and_its_gradient_are_finite_far_out(case: Case, value: float) -> None:
    family = case.family
    prior = family.open(base(case, 2), case.tasks)
    at = {k: torch.full_like(v, value).requires_grad_() for k, v in family.origin(prior).items()}
    kl = family.kl(family.place(prior, at, shape=prior), prior)
    assert bool(torch.isfinite(kl))
    if kl.requires_grad:
        gradients = torch.autograd.grad(kl, list(at.values()), allow_unused=True)
        for name, gradient in zip(at, gradients, strict=True):
            assert gradient is None or bool(torch.isfinite(gradient).all()), name


@each_family
def test_remembering_everything_returns_the_state_itself(case: Case) -> None:
    start = base(case, 2)
    state = learned(case, start, seed=2)
    assert same(case.family.forget(state, start, beta=1.0), state)


@each_family
def test_more_forgetting_moves_precision_monotonically_towards_the_base(case: Case) -> None:
    """Along every axis and many random directions; at beta = 0 the base is reached exactly."""
    start = base(case, 2)
    state, weights = learned(case, start, seed=2), len(case.believed(start).precision)
    if not weights:
        assert same(case.family.forget(state, start, beta=0.5), state)  # a point holds no belief
        return
    rng = torch.Generator().manual_seed(1)
    tried = torch.cat([torch.eye(weights), torch.randn(50, weights, generator=rng)]).double()

    def strength(state: Any) -> Tensor:
        along = ((tried @ case.believed(state).precision) * tried).sum(dim=1)
        return torch.cat([along, naturals(case.beside(state))])

    goal = strength(start)
    gaps = [
        (strength(case.family.forget(state, start, beta=beta)) - goal).abs()
        for beta in sorted(BETA_GRID, reverse=True)
    ]
    scale = goal.abs()
    for wider, narrower in itertools.pairwise(gaps):
        assert bool((narrower <= wider * (1 + 1e-4) + 1e-6 * scale).all())
    assert float(gaps[-1].max()) == 0.0


@each_family
@pytest.mark.parametrize("beta", [0.999, 0.5])
def test_forgetting_is_the_power_prior(case: Case, beta: float) -> None:
    """Precision and precision times mean are mixed, which a mixture of means would not do."""
    start = base(case, 2)
    state = learned(case, start, seed=2)
    mixed = case.family.forget(state, start, beta=beta)
    ours, theirs, both = (naturals(case.beside(s)) for s in (state, start, mixed))
    torch.testing.assert_close(both, beta * ours + (1 - beta) * theirs, rtol=1e-4, atol=0.0)
    q, p, found = (case.believed(s) for s in (state, start, mixed))
    if not q.precision.numel():
        return
    precision = beta * q.precision + (1 - beta) * p.precision
    shift = beta * q.precision @ q.mean + (1 - beta) * p.precision @ p.mean
    torch.testing.assert_close(found.precision, precision, rtol=1e-4, atol=1e-3 * float(precision.max()))
    torch.testing.assert_close(found.mean, torch.linalg.solve(precision, shift), rtol=1e-3, atol=1e-5)


@each_family
def test_growing_the_head_leaves_old_rows_and_costs_nothing(case: Case) -> None:
    family, state = case.family, learned(case, base(case, 2), seed=2)
    start = base(case, 3)
    grown = family.open(family.grow(state, start), case.tasks)
    assert float(family.kl(grown, family.open(family.grow(state, start), case.tasks))) == 0.0
    opened, fresh = family.open(state, case.tasks), family.open(start, case.tasks)
    old, new, first = (family.mean(w, case.tasks[:1]) for w in (opened, grown, fresh))
    assert torch.equal(new["head"][:, :2], old["head"])
    assert torch.equal(new["head"][:, 2:], first["head"][:, 2:])
    assert torch.equal(new["q.A"], old["q.A"])
    ones = {k: torch.ones(1, *shape) for k, shape in family.noise(grown).items()}
    if ones and case.exact != "none":
        drawn, own = (family.sample(w, ones, case.tasks[:1])["head"] for w in (grown, fresh))
        torch.testing.assert_close(drawn[:, 2:], own[:, 2:], msg="a new row is as wide as in the base")


def test_every_family_there_is_meets_the_laws() -> None:
    """A family is one line in the table of families; without a case here no law would know of it."""
    assert {type(make()) for make in FAMILIES.values()} <= {type(case.family) for case in CASES.values()}


@each_family
def test_growing_the_head_leaves_old_ratios_of_every_draw(case: Case) -> None:
    family, state = case.family, learned(case, base(case, 2), seed=2)
    before = family.open(state, case.tasks)
    after = family.open(family.grow(state, base(case, 3)), case.tasks)
    few, many = family.noise(before), family.noise(after)
    wide = normals(many, 3, seed=5)
    cut = {k: v[(slice(None), *(slice(0, n) for n in few[k]))] for k, v in wide.items()}
    old = family.sample(before, cut, [case.tasks[0]] * 3)
    new = family.sample(after, wide, [case.tasks[0]] * 3)
    torch.testing.assert_close(new["head"][:, :2], old["head"])
    torch.testing.assert_close(new["v.B"], old["v.B"])


@each_family
def test_the_base_of_old_slots_does_not_depend_on_new_ones(case: Case) -> None:
    few, many = (
        case.family.mean(case.family.open(base(case, n, seed=7), case.tasks), case.tasks[:1]) for n in (2, 5)
    )
    assert all(torch.equal(few[k], many[k]) for k in few if k != "head")
    assert not all(torch.equal(few[f"v.{m}"], few[f"q.{m}"]) for m in "AB")
