"""What is MonteCLoRA's own: the law of its draws, what each factor is charged, and where learning ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, Normal, Wishart, kl_divergence

from posterior.family import ONE_TASK, Slot
from posterior.monteclora import Drawn, MonteClora
from tests.posterior.cases import normals
from tests.trainers.regression import Regression, windows
from trainers.update import InProcess, Schedule, update

FAMILY = MonteClora()
SITE = Slot("q.A", (2, 3), "down")
N = 40_000


def only_draws(*, alpha: list[float], root: list[float]) -> Drawn:
    """Return a belief whose means are certain."""
    base = FAMILY.base((SITE,), seed=1, centres={})
    return replace(
        base,
        mean={"q.A": torch.zeros(SITE.shape)},
        log_sd={"q.A": torch.full(SITE.shape, -30.0)},
        log_root={"q.A": torch.tensor(root)},
        log_alpha={"q.A": torch.tensor(alpha).log()},
    )


def literally(state: Drawn, n: int) -> Tensor:
    """Draw sum_k pi_k X_k as the model is written: K matrices of columns ~ N(0, Sigma)."""
    rng = torch.Generator().manual_seed(9)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        pi = Dirichlet(state.log_alpha["q.A"].double().exp()).sample((n,))
    r, d = SITE.shape
    root = state.log_root["q.A"].double().exp()
    rows = torch.randn(n, int(state.nu["q.A"]), r, generator=rng, dtype=torch.float64) * root
    lower = torch.linalg.cholesky(rows.transpose(1, 2) @ rows)
    x = torch.randn(n, pi.shape[1], r, d, generator=rng, dtype=torch.float64)
    return torch.einsum("nk,nrs,nksd->nrd", pi, lower, x)


def products(a: Tensor) -> Tensor:
    """Return, by draw, what tells laws of a matrix apart: scales, and what rows and columns share."""
    two, within, across = a[:, 0, 0] * a[:, 1, 0], a[:, 0, 0] * a[:, 0, 1], a[:, 0, 0] * a[:, 1, 1]
    return torch.stack([a[:, 0, 0], a[:, 1, 2], two, within, across], dim=1).square()


def test_one_draw_is_the_weighted_sum_of_k_draws_of_one_covariance() -> None:
    """In second and mixed fourth moments; a covariance per column or weights per entry would differ."""
    state = only_draws(alpha=[0.7, 2.0, 1.0, 3.0], root=[0.3, -0.4])
    draw = FAMILY.sample(state, normals(FAMILY.noise(state), N, seed=4), [ONE_TASK] * N)["q.A"].double()
    ours, theirs = products(draw), products(literally(state, N))
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / N).sqrt()
    assert bool(((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 5 * error).all())


def test_each_factor_is_charged_once_and_the_draws_given_them_nothing() -> None:
    prior = FAMILY.base((SITE,), seed=1, centres={})
    u = {k: torch.full_like(v, 0.3) for k, v in FAMILY.origin(prior).items()}
    state = FAMILY.place(prior, u, shape=prior)
    means = kl_divergence(
        Normal(state.mean["q.A"].double(), state.log_sd["q.A"].double().exp()),
        Normal(prior.mean["q.A"].double(), prior.log_sd["q.A"].double().exp()),
    ).sum()
    (sigma, pi), (was_sigma, was_pi) = laws(state), laws(prior)
    wanted = means + kl_divergence(sigma, was_sigma) + kl_divergence(pi, was_pi)
    torch.testing.assert_close(FAMILY.kl(state, prior), wanted, rtol=1e-6, atol=0.0)


def laws(state: Drawn) -> tuple[Wishart, Dirichlet]:
    scale = torch.diag(state.log_root["q.A"].double().exp())
    wishart = Wishart(state.nu["q.A"].double(), scale_tril=scale)
    return wishart, Dirichlet(state.log_alpha["q.A"].double().exp())


def test_the_expected_inverse_covariance_exists() -> None:
    """The least nu is r + 2, and it is handed on with the state."""
    assert float(FAMILY.base((SITE,), seed=1, centres={}).nu["q.A"]) >= SITE.shape[0] + 2
    with pytest.raises(ValueError, match="spare must be at least 2"):
        MonteClora(spare=1.0)


def test_draws_start_at_the_deviation_that_was_asked_for() -> None:
    for family in (
        MonteClora(sd_draws=0.3),
        MonteClora(sd_draws=0.3, components=8, dirichlet=3.0, spare=9.0),
    ):
        state = replace(
            family.base((SITE,), seed=1, centres={}), log_sd={"q.A": torch.full(SITE.shape, -30.0)}
        )
        draw = family.sample(state, normals(family.noise(state), N, seed=4), [ONE_TASK] * N)["q.A"]
        torch.testing.assert_close((draw - state.mean["q.A"]).std(), torch.tensor(0.3), rtol=0.03, atol=0.0)


def test_only_the_down_projections_have_draws() -> None:
    site, grown = (SITE, Slot("q.B", (4, 2), "up")), Slot("head", (3, 5), "head")
    state = FAMILY.base((*site, grown), seed=1, centres={})
    assert set(state.log_root) == {"q.A"}
    assert "head~draw" not in FAMILY.noise(state)


def learned(state: Drawn, window: Regression, *, seed: int) -> Drawn:
    posterior, _ = update(
        FAMILY,
        state,
        window,
        examples=len(window.y),
        schedule=Schedule(epochs=150, batch=24, lr=0.1, draws=3),
        seed=seed,
        window=0,
        ranks=InProcess(),
    )
    return posterior


def optimum(prior: Drawn, x: Tensor, y: Tensor) -> Drawn:
    """Return the best of the family for y = X a + noise, in float64; the prior's weights are alike.

    Means as in a mean field. With weights of E|pi|^2 = c, V^-1 = V_p^-1 + c H, H the curvature of a rank row,
    which costs nu/2 sum log|1 + c H V_p| in all; alpha, alike for all draws, is then the best on a grid.
    """
    sd = prior.log_sd["q.A"].double().exp()
    precision = torch.diag(1 / sd.flatten().square()) + x.T @ x
    shift = (prior.mean["q.A"].double() / sd.square()).flatten() + x.T @ y
    curvature = torch.diagonal(x.T @ x).reshape(SITE.shape).sum(dim=1)
    scale, nu = torch.exp(2 * prior.log_root["q.A"].double()), prior.nu["q.A"].double()
    start = prior.log_alpha["q.A"].double().exp()
    alpha = torch.linspace(-3, 3, 6001, dtype=torch.float64).exp()[:, None].expand(-1, len(start))
    norm = (alpha[:, :1] + 1) / (alpha.sum(dim=1, keepdim=True) + 1)
    spread = nu / 2 * torch.log1p(norm * curvature * scale).sum(dim=1)
    best = int((spread + kl_divergence(Dirichlet(alpha), Dirichlet(start))).argmin())
    return replace(
        prior,
        mean={"q.A": torch.linalg.solve(precision, shift).reshape(SITE.shape)},
        log_sd={"q.A": -0.5 * torch.diagonal(precision).log().reshape(SITE.shape)},
        log_root={"q.A": -0.5 * torch.log(1 / scale + norm[best] * curvature)},
        log_alpha={"q.A": alpha[best].log()},
    )


def require_close(found: Drawn, wanted: Drawn) -> None:
    """Compare means in posterior deviations, everything else in logs."""
    apart = (found.mean["q.A"] - wanted.mean["q.A"]) / wanted.log_sd["q.A"].exp()
    assert float(apart.abs().max()) < 0.15
    for ours, theirs in ((found.log_sd, wanted.log_sd), (found.log_root, wanted.log_root)):
        assert float((ours["q.A"] - theirs["q.A"]).abs().max()) < 0.1
    alpha, goal = found.log_alpha["q.A"].exp(), wanted.log_alpha["q.A"].exp()
    torch.testing.assert_close(alpha, goal.float(), rtol=0.2, atol=0.1)


@pytest.mark.slow
def test_the_update_reaches_the_optimum_over_means_covariances_and_weights() -> None:
    family = MonteClora(sd_down=0.3, sd_draws=0.3)
    (window,) = windows(1, examples=48, features=6, orthogonal=False, seed=1)
    base = family.base((SITE,), seed=1, centres={})
    found = learned(base, replace(window, slot="q.A"), seed=1)
    require_close(found, optimum(base, window.x.double(), window.y.double()))


@pytest.mark.slow
def test_means_learned_in_two_windows_are_those_of_both_at_once() -> None:
    """The draws, which give way on the evidence of the first, do not weigh on the second."""
    family = MonteClora(sd_down=0.3, sd_draws=0.3)
    one, two = windows(2, examples=48, features=6, orthogonal=True, seed=2)
    base = family.base((SITE,), seed=1, centres={})
    first = learned(base, replace(one, slot="q.A"), seed=1)
    second = learned(family.forget(first, base, beta=1.0), replace(two, slot="q.A"), seed=2)
    x, y = torch.cat([one.x, two.x]).double(), torch.cat([one.y, two.y]).double()
    wanted = optimum(base, x, y)
    apart = (second.mean["q.A"] - wanted.mean["q.A"]) / wanted.log_sd["q.A"].exp()
    assert float(apart.abs().max()) < 0.2
    assert float((second.log_sd["q.A"] - wanted.log_sd["q.A"]).abs().max()) < 0.1
    assert bool((second.log_root["q.A"] < first.log_root["q.A"]).all())
