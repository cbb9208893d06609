"""The production update on data whose exact posterior is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from posterior.blob import Blob
from posterior.family import NotFinite, Slot
from posterior.gaussian import Diagonal
from tests.trainers.listening import Listening
from tests.trainers.regression import Regression
from trainers.noise import key, normals, shuffled
from trainers.update import InProcess, Likelihood, Schedule, update

FAMILY = Blob(sd_head=1.0)
D, N, NOISE = 4, 64, 0.5
# Slow and thorough: these tests ask for the optimum, not for speed.
THOROUGH = Schedule(epochs=300, batch=32, lr=0.1, draws=4)


def data(seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs with orthogonal columns, for which mean-field is exact, and noisy outputs."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.linalg.qr(torch.randn(N, D, generator=rng))[0] * 3.0
    w = torch.linspace(-1, 1, D)
    return x, x @ w + NOISE * torch.randn(N, generator=rng)


def gaussian(x: Tensor, y: Tensor) -> Likelihood:
    """Return the Gaussian likelihood of y = x w + noise."""
    return Regression(x / NOISE, y / NOISE)


def exact(prior: Diagonal, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the analytic posterior's mean and precision diagonal in float64."""
    x, y = x.double(), y.double()
    before = torch.exp(-2 * prior.log_sd["head"][0].double())
    precision = torch.diag(before) + x.T @ x / NOISE**2
    target = before * prior.mean["head"][0].double() + x.T @ y / NOISE**2
    return torch.linalg.solve(precision, target), torch.diagonal(precision)


def learn(
    prior: Diagonal, x: Tensor, y: Tensor, *, seed: int, world: int = 1, schedule: Schedule = THOROUGH
) -> Diagonal:
    posterior, fit = update(
        FAMILY,
        prior,
        gaussian(x, y),
        examples=len(y),
        schedule=schedule,
        seed=seed,
        window=0,
        ranks=InProcess(world),
    )
    assert fit.kl > 0
    return posterior


@pytest.fixture(scope="module")
def base() -> Diagonal:
    return FAMILY.base((Slot("head", (1, D), "head"),), seed=1, centres={})


@pytest.fixture(scope="module")
def first(base: Diagonal) -> Diagonal:
    return learn(base, *data(1), seed=1)


def test_the_update_recovers_the_analytic_posterior(base: Diagonal, first: Diagonal) -> None:
    mean, precision = exact(base, *data(1))
    sd = precision.rsqrt()
    assert float(((first.mean["head"][0] - mean) / sd).abs().max()) < 0.15
    torch.testing.assert_close(first.log_sd["head"][0].double(), sd.log(), atol=0.08, rtol=0)


def test_two_windows_in_turn_reach_the_posterior_of_both(base: Diagonal, first: Diagonal) -> None:
    (x1, y1), (x2, y2) = data(1), data(2)
    both = learn(FAMILY.forget(first, base, beta=1.0), x2, y2, seed=2)
    mean, precision = exact(base, torch.cat([x1, x2]), torch.cat([y1, y2]))
    sd = precision.rsqrt()
    assert float(((both.mean["head"][0] - mean) / sd).abs().max()) < 0.25
    torch.testing.assert_close(both.log_sd["head"][0].double(), sd.log(), atol=0.1, rtol=0)


def test_the_number_of_epochs_is_not_evidence(base: Diagonal, first: Diagonal) -> None:
    """If N_t counted epochs, the posterior would be narrower by sqrt(300)."""
    _, precision = exact(base, *data(1))
    assert float((first.log_sd["head"][0].double() + 0.5 * precision.log()).abs().max()) < 0.1


def test_a_cyclic_kl_reaches_the_same_posterior(base: Diagonal) -> None:
    """Four steps a cycle, whose charges are 1 : 2 : 4 : 8: unless their mean is 1, the spread shows it."""
    cyclic = replace(THOROUGH, batch=16, kl_schedule="cyclic")
    learned = learn(base, *data(1), seed=1, schedule=cyclic)
    mean, precision = exact(base, *data(1))
    sd = precision.rsqrt()
    assert float(((learned.mean["head"][0] - mean) / sd).abs().max()) < 0.2
    torch.testing.assert_close(learned.log_sd["head"][0].double(), sd.log(), atol=0.1, rtol=0)


def test_another_parent_gives_another_child(base: Diagonal, first: Diagonal) -> None:
    """The prior acts: from a sure parent the same window moves the belief less."""
    x, y = data(3)
    from_base = learn(base, x, -y, seed=3)
    from_first = learn(first, x, -y, seed=3)
    gap = (from_base.mean["head"] - from_first.mean["head"]).abs().max()
    assert float(gap) > 0.3


def test_no_example_changes_nothing(first: Diagonal) -> None:
    posterior, fit = update(
        FAMILY,
        first,
        gaussian(*data(1)),
        examples=0,
        schedule=THOROUGH,
        seed=1,
        window=0,
        ranks=InProcess(),
    )
    assert posterior is first
    assert fit.kl == 0.0


def quick(prior: Diagonal, world: int, examples: int = N) -> Diagonal:
    posterior, _ = update(
        FAMILY,
        prior,
        gaussian(*data(1)),
        examples=examples,
        schedule=Schedule(epochs=2, batch=7, lr=0.05),
        seed=1,
        window=0,
        ranks=InProcess(world),
    )
    return posterior


@pytest.mark.parametrize("world", [2, 3])
def test_the_world_size_changes_rounding_only(base: Diagonal, world: int) -> None:
    """Batches of 7 make unequal shards: averaging shard means instead of sums would show."""
    alone, together = quick(base, 1), quick(base, world)
    torch.testing.assert_close(alone.mean["head"], together.mean["head"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone.log_sd["head"], together.log_sd["head"], atol=1e-4, rtol=1e-4)


def test_the_same_window_gives_the_same_bits(base: Diagonal) -> None:
    assert torch.equal(quick(base, 2).mean["head"], quick(base, 2).mean["head"])


def test_an_empty_shard_is_no_evidence(base: Diagonal) -> None:
    assert torch.equal(quick(base, 1, examples=1).mean["head"], quick(base, 3, examples=1).mean["head"])


def test_a_gradient_that_is_no_number_is_an_error_with_its_site(base: Diagonal) -> None:
    x, y = data(1)
    y[3] = float("nan")
    with pytest.raises(NotFinite, match=r"window 0, step \d+: the gradient of 'mean/head'"):
        learn(base, x, y, seed=1)


def test_noise_belongs_to_the_example_not_to_its_neighbours() -> None:
    shapes = {"a": (2, 3), "b": (4,)}
    together = normals(shapes, [key(1, 0, i) for i in (5, 9)])
    alone = normals(shapes, [key(1, 0, 9)])
    assert torch.equal(together["a"][1], alone["a"][0])
    assert torch.equal(together["b"][1], alone["b"][0])
    assert not torch.equal(together["a"][0], together["a"][1])


def test_every_epoch_has_its_own_order_and_noise() -> None:
    assert sorted(shuffled(20, 1)) == list(range(20))
    assert shuffled(20, 1) != shuffled(20, 2)
    assert key(1, 0, 3) != key(1, 1, 3)
    assert key(1, 12) != key(11, 2)


@pytest.mark.parametrize("world", [1, 2])
def test_no_two_draws_are_the_same(base: Diagonal, world: int) -> None:
    """Of an example, of its neighbours, of one step or of two epochs; nothing moves at a step size of 0."""
    heard = Listening(gaussian(*data(1)))
    still = Schedule(epochs=3, batch=7, lr=0.0, draws=2)
    update(FAMILY, base, heard, examples=20, schedule=still, seed=1, window=0, ranks=InProcess(world))
    rows = {tuple(row.tolist()) for row in heard.rows()}
    assert len(rows) == len(heard.heard) == 3 * 20 * 2
