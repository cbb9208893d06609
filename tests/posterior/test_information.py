"""Laws of what a window taught by site: against dense matrices, in every family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posterior.bora import Bora
from posterior.family import tensors_of
from posterior.information import BETWEEN, by_site, site_of
from tests.posterior.cases import CASES, Case, Dense, in_double, learned, moved, names, slots

TASKS = replace(CASES["bora"], tasks=("forum", "mails/è"))
ALL = {**CASES, "bora, tasks": TASKS, "bora, map": replace(TASKS, family=Bora(fit="map"))}
NAMES = names(slots(2))
SITES = sorted({site_of(name) for name in NAMES})

each_family = pytest.mark.parametrize("case", ALL.values(), ids=ALL)


def state_of(case: Case, seed: int) -> Any:
    state = learned(case, case.family.base(slots(2), seed=1, centres={}), seed=seed)
    return in_double(case, state, tensors_of(state))


def test_a_site_is_where_its_weights_meet_the_model() -> None:
    assert SITES == ["ffn.adapter", "head", "q", "self.prefix", "v"]


@each_family
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from([1e-3, 0.5, 2.0]))
def test_sites_add_up_to_the_divergence_and_none_is_below_zero(case: Case, seed: int, size: float) -> None:
    family, state = case.family, state_of(case, seed)
    prior, other = family.open(state, case.tasks), moved(case, state, seed=seed + 1, size=size)
    told, whole = by_site(family, other, prior, NAMES), float(family.kl(other, prior))
    assert math.fsum(told.values()) == pytest.approx(whole, rel=1e-6, abs=1e-12)
    assert all(told[site] >= 0 for site in SITES)
    assert sorted(told.keys() - {BETWEEN}) == SITES
    assert BETWEEN not in told or _correlated(case, case.settled(state, prior, other))


@each_family
def test_of_itself_a_belief_taught_nothing(case: Case) -> None:
    belief = moved(case, state_of(case, 2), seed=3)
    assert by_site(case.family, belief, belief, NAMES) == dict.fromkeys(by_order(), 0.0)


@each_family
@pytest.mark.parametrize("touched", NAMES)
def test_a_site_that_nothing_touched_was_taught_nothing(case: Case, touched: str) -> None:
    family = case.family
    prior = family.open(state_of(case, 2), case.tasks)
    at = {
        k: torch.full_like(v, 0.3) if k.partition("/")[2] == touched else v
        for k, v in family.origin(prior).items()
    }
    told = by_site(family, family.place(prior, at, shape=prior), prior, NAMES)
    assert [site for site in SITES if told[site] and site != site_of(touched)] == []
    if family.noise(prior) and any(k.partition("/")[2] == touched for k in at):
        assert told[site_of(touched)] > 0


@each_family
def test_a_site_s_share_is_the_divergence_of_its_marginals(case: Case) -> None:
    """From dense matrices: blocks of means and covariances, not of precisions."""
    state = state_of(case, 2)
    if case.beside(state) or len(case.tasks) > 1 or not case.believed(state).precision.numel():
        return  # not one Gaussian over weights: held by the sum
    prior = case.family.open(state, case.tasks)
    other = moved(case, state, seed=3)
    told, settled = by_site(case.family, other, prior, NAMES), case.settled(state, prior, other)
    p, q, places = case.believed(state), case.believed(settled), _places(case, state)
    for site in SITES:
        inside = [i for i, slot in enumerate(places) if site_of(slot) == site]
        assert told[site] == pytest.approx(_divergence(q, p, inside), rel=1e-6, abs=1e-9)


def by_order() -> list[str]:
    return list(dict.fromkeys(map(site_of, NAMES)))


def _places(case: Case, state: Any) -> list[str]:
    """Return the slot of each entry of the dense vectors."""
    held = [(k, state.mean[k]) for k in sorted(state.mean)]
    if len(case.believed(state).mean) > sum(v.numel() for _, v in held):
        held += [(k, state.point[k]) for k in sorted(state.point)]
    return [k for k, v in held for _ in range(v.numel())]


def _divergence(q: Dense, p: Dense, inside: Sequence[int]) -> float:
    block = torch.tensor(inside)
    cov, prior_cov = (torch.linalg.inv(d.precision)[block][:, block] for d in (q, p))
    apart = (q.mean - p.mean)[block]
    solved = torch.linalg.solve(prior_cov, torch.cat([cov, apart[:, None]], dim=1))
    gap = torch.linalg.slogdet(prior_cov).logabsdet - torch.linalg.slogdet(cov).logabsdet
    return float(0.5 * (torch.trace(solved[:, :-1]) - len(inside) + apart @ solved[:, -1] + gap))


def _correlated(case: Case, state: Any) -> bool:
    """Tell whether weights of two sites lie along a line, in which case there is something between them."""
    precision, places = case.believed(state).precision, _places(case, state)
    apart = torch.tensor([[site_of(a) != site_of(b) for b in places] for a in places])
    return bool((precision[apart] != 0).any())
