"""What is BLoB's own: when B freezes, and what A's prior is until then."""

from __future__ import annotations

import pytest
import torch

from posterior.blob import Blob
from posterior.family import Facts
from posterior.gaussian import Diagonal
from tests.posterior.cases import CASES, moved, slots

FAMILY = Blob(b="frozen")
CASE = CASES["blob, B frozen"]
ANCHORED = Blob(b="anchored")
TWO = Facts(classes_seen=2, window=0)


def warm() -> Diagonal:
    state = moved(CASE, FAMILY.base(slots(2), seed=1, centres={}), seed=2)
    assert isinstance(state, Diagonal)
    return state


def settled(state: Diagonal, facts: Facts) -> Diagonal:
    return FAMILY.settle(state, state, state, facts)


def test_b_is_not_frozen_by_a_window_of_one_class() -> None:
    assert settled(warm(), Facts(classes_seen=1, window=0)).flags["b_frozen"] == 0


def test_b_is_not_frozen_while_a_column_is_no_direction() -> None:
    state = warm()
    state.point["q.B"][:, 1] = state.point["q.B"][:, 0]
    assert settled(state, TWO).flags["b_frozen"] == 0


def test_b_stays_where_it_was_frozen() -> None:
    state = settled(warm(), TWO)
    assert state.flags["b_frozen"] == 1
    assert not any(k.startswith("point/") for k in FAMILY.origin(state))
    assert torch.equal(moved(CASE, state, seed=5).point["q.B"], state.point["q.B"])


def test_a_learned_beside_a_moving_b_is_no_prior() -> None:
    base = FAMILY.base(slots(2), seed=1, centres={})
    prior = FAMILY.forget(warm(), base, beta=1.0)
    assert torch.equal(prior.mean["q.A"], base.mean["q.A"])
    assert torch.equal(prior.mean["head"], warm().mean["head"])


def test_an_anchored_b_is_charged_its_way_from_yesterday_and_nothing_else() -> None:
    start = ANCHORED.base(slots(2), seed=1, centres={})
    prior = moved(CASES["blob, B anchored"], start, seed=2)
    way = torch.full((4, 2), 3 * ANCHORED.sd_up)
    there = Diagonal(prior.mean, prior.log_sd, prior.point | {"q.B": prior.point["q.B"] + way}, prior.flags)
    assert float(ANCHORED.kl(there, prior)) == pytest.approx(0.5 * 3**2 * 8, rel=1e-5)
    handed_on = ANCHORED.settle(start, prior, there, TWO)
    assert all(k in ANCHORED.origin(handed_on) for k in ("point/q.B", "point/v.B"))


def test_an_anchored_b_starts_again_with_everything_else() -> None:
    """A reset that left B would give A's base a meaning that the base never had."""
    start = ANCHORED.base(slots(2), seed=1, centres={})
    state = moved(CASES["blob, B anchored"], start, seed=2)
    assert float(state.point["q.B"].abs().max()) > 0
    assert float(ANCHORED.forget(state, start, beta=0.0).point["q.B"].abs().max()) == 0.0


def test_with_b_frozen_kl_on_a_is_kl_on_the_adapted_weight() -> None:
    """Check the claim against explicit Gaussians over W = BA, restricted to B's range."""
    rng = torch.Generator().manual_seed(0)
    b = torch.linalg.qr(torch.randn(4, 2, generator=rng, dtype=torch.float64))[0]
    b = b @ torch.diag(torch.tensor([0.7, 1.9], dtype=torch.float64))
    q_mean, p_mean = torch.randn(2, 2, generator=rng, dtype=torch.float64)
    q_sd, p_sd = torch.rand(2, 2, generator=rng, dtype=torch.float64) + 0.2
    basis = torch.linalg.qr(b)[0].T  # coordinates of the range of B

    def over_w(mean: torch.Tensor, sd: torch.Tensor) -> torch.distributions.MultivariateNormal:
        into = basis @ b
        return torch.distributions.MultivariateNormal(into @ mean, into @ torch.diag(sd**2) @ into.T)

    on_w = torch.distributions.kl_divergence(over_w(q_mean, q_sd), over_w(p_mean, p_sd))

    def state(mean: torch.Tensor, sd: torch.Tensor) -> Diagonal:
        flags = {"b_frozen": torch.ones((), dtype=torch.int64)}
        return Diagonal(mean={"q.A": mean}, log_sd={"q.A": sd.log()}, point={"q.B": b}, flags=flags)

    on_a = Blob(b="frozen").kl(state(q_mean, q_sd), state(p_mean, p_sd))
    torch.testing.assert_close(on_w, on_a)


def test_class_rows_take_shorter_steps_and_nothing_else_does() -> None:
    prior = Blob().base(slots(2), seed=1, centres={})
    ones = {k: torch.ones_like(v) for k, v in Blob().origin(prior).items()}
    short, long = (f.place(prior, ones, shape=prior) for f in (Blob(head_step=0.25), Blob(head_step=1.0)))
    torch.testing.assert_close(short.mean["head"], 0.25 * long.mean["head"])
    assert all(torch.equal(short.log_sd[k], v) for k, v in long.log_sd.items())
    assert all(torch.equal(short.mean[k], v) for k, v in long.mean.items() if k != "head")
