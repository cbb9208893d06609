"""Every family's production update against an oracle in float64 that shares no code with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from posterior.family import Facts, Slot
from tests.posterior.cases import CASES, Case, Dense
from tests.trainers.regression import Regression, windows
from trainers.update import InProcess, Schedule, update

pytestmark = pytest.mark.slow  # every family learns to convergence

D, N = 4, 48
HEAD = (Slot("head", (1, D), "head"),)
# Slow and thorough: these tests ask for the optimum, not for speed.
THOROUGH = Schedule(epochs=250, batch=24, lr=0.1, draws=4)
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def learn(
    case: Case,
    state: Any,
    window: Regression,
    *,
    seed: int,
    world: int = 1,
    schedule: Schedule,
    evidence: float | None = None,
) -> Any:
    prior = case.family.open(state, case.tasks)
    posterior, fit = update(
        case.family,
        prior,
        window,
        examples=len(window.y),
        schedule=schedule,
        seed=seed,
        window=0,
        ranks=InProcess(world),
        tasks=[case.tasks[0]] * len(window.y),
        evidence=evidence,
    )
    assert fit.kl >= 0.0
    return case.family.settle(state, prior, posterior, Facts(2, 0, case.tasks))


def require_close(found: Dense, wanted: Dense, *, slack: float) -> None:
    """Compare means in posterior deviations, and precisions in the whitened space of the wanted one."""
    if not wanted.precision.numel():
        assert float((found.mean - wanted.mean).abs().max()) < 0.02 * slack
        return
    root = torch.linalg.cholesky(wanted.precision)
    assert float(((found.mean - wanted.mean) @ root).abs().max()) < 0.15 * slack
    inverse = torch.linalg.inv(root)
    ratio = torch.linalg.eigvalsh(inverse @ found.precision @ inverse.T)
    assert float(ratio.log().abs().max()) < 0.18 * slack


@each_case
def test_the_update_reaches_the_family_s_own_optimum(case: Case) -> None:
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=1)
    base = case.family.base(HEAD, seed=1, centres={})
    wanted = case.best(case.dense(base), window.x.double(), window.y.double())
    require_close(case.dense(learn(case, base, window, seed=1, schedule=THOROUGH)), wanted, slack=1)


@each_case
def test_evidence_and_temperature_say_how_much_the_data_count(case: Case) -> None:
    """Evidence of three times the examples at T = 1.5 is every example seen twice."""
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=4)
    base = case.family.base(HEAD, seed=1, centres={})
    wanted = case.best(case.dense(base), 2**0.5 * window.x.double(), 2**0.5 * window.y.double())
    warm = replace(THOROUGH, temperature=1.5)
    found = learn(case, base, window, seed=1, schedule=warm, evidence=3.0 * N)
    require_close(case.dense(found), wanted, slack=1.5)


@each_case
def test_two_windows_in_turn_are_both_at_once_where_exact(case: Case) -> None:
    if case.exact == "none":
        return  # the claim is that there is none: a point remembers nothing of the first window
    one, two = windows(2, examples=N, features=D, orthogonal=case.exact == "orthogonal", seed=2)
    base = case.family.base(HEAD, seed=1, centres={})
    x, y = torch.cat([one.x, two.x]).double(), torch.cat([one.y, two.y]).double()
    wanted = case.best(case.dense(base), x, y)
    first = learn(case, base, one, seed=1, schedule=THOROUGH)
    second = learn(case, case.family.forget(first, base, beta=1.0), two, seed=2, schedule=THOROUGH)
    require_close(case.dense(second), wanted, slack=1.5)


@pytest.mark.parametrize("name", ["blob, B frozen", "bhpeft, ups frozen"])
def test_a_site_beside_a_frozen_b_is_both_windows_at_once(name: str) -> None:
    """Its first window begins while B may still move; from then on yesterday's posterior is the prior."""
    case, site = CASES[name], (Slot("q.A", (2, 2), "down"), Slot("q.B", (3, 2), "up"))
    one, two = (replace(w, slot="q.A") for w in windows(2, examples=N, features=D, orthogonal=True, seed=5))
    columns = torch.linalg.qr(torch.randn(3, 2, generator=torch.Generator().manual_seed(1)))[0]
    base = case.family.base(site, seed=1, centres={"q.B": columns})
    x, y = torch.cat([one.x, two.x]).double(), torch.cat([one.y, two.y]).double()
    first = learn(case, base, one, seed=1, schedule=THOROUGH)
    prior = case.family.forget(first, base, beta=1.0)
    second = learn(case, prior, two, seed=2, schedule=THOROUGH)
    assert torch.equal(second.point["q.B"], columns)
    require_close(case.dense(second), case.best(case.dense(base), x, y), slack=1.5)


@each_case
@pytest.mark.parametrize("world", [2, 3])
def test_workers_change_rounding_only(case: Case, world: int) -> None:
    """Batches of 7 make unequal shards: averaging shard means instead of sums would show."""
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=3)
    base = case.family.base(HEAD, seed=1, centres={})
    quick = Schedule(epochs=2, batch=7, lr=0.05, curvature_sample=20)
    alone, together = (
        case.dense(learn(case, base, window, seed=1, world=w, schedule=quick)) for w in (1, world)
    )
    torch.testing.assert_close(alone.mean, together.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.precision, together.precision, atol=1e-4, rtol=1e-4)


@each_case
def test_no_example_changes_nothing(case: Case) -> None:
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=3)
    prior = case.family.open(case.family.base(HEAD, seed=1, centres={}), case.tasks)
    posterior, fit = update(
        case.family,
        prior,
        window,
        examples=0,
        schedule=THOROUGH,
        seed=1,
        window=0,
        ranks=InProcess(),
    )
    assert posterior is prior
    assert fit.kl == 0.0
