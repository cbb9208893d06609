"""What is BoRA's own: evidence travels between tasks, once, by the amount that Gaussians say.

`learn` is a perfect update: the same objective, with the expectation in closed form, solved in float64.
The oracle writes Theta and all tasks out as one Gaussian and solves it whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posterior.bora import Bora
from posterior.family import Facts, Slot, tensors_of
from posterior.hierarchy import Hierarchy, gap, known_tasks, learned_tau, site
from posterior.tensors import from_bytes, to_bytes
from tests.posterior.cases import normals, slots

D, SD, APART = 3, 0.5, 0.7
TAU = APART**-2
HEAD = (Slot("head", (1, D), "head"),)
FAMILY = Bora(sd_head=SD, apart=APART, learn_apart=False)
NAMES = ("cars", "a/b", "", "ünï/")
Evidence = Mapping[str, tuple[Tensor, Tensor]]


def doubled(state: Hierarchy, family: Bora = FAMILY) -> Hierarchy:
    return family.restore({k: v.double() for k, v in tensors_of(state).items()})


def start(family: Bora = FAMILY) -> Hierarchy:
    return doubled(family.base(HEAD, seed=1, centres={"head": torch.tensor([[0.3, -0.2, 0.1]])}), family)


def evidence(seed: int, *tasks: str, size: int = 12) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a design with orthogonal columns of unequal length, and outputs of deviation 1, by task."""
    rng = torch.Generator().manual_seed(seed)
    made = {}
    for task in tasks:
        x = torch.linalg.qr(torch.randn(size, D, generator=rng, dtype=torch.float64))[0]
        x = x * torch.tensor([1.0, 2.0, 4.0])
        w = torch.randn(D, generator=rng, dtype=torch.float64)
        made[task] = (x, x @ w + torch.randn(size, generator=rng, dtype=torch.float64))
    return made


def learn(state: Hierarchy, data: Evidence, family: Bora = FAMILY) -> Hierarchy:
    tasks = sorted(data)
    prior = family.open(state, tasks)
    at = {k: v.clone().requires_grad_() for k, v in family.origin(prior).items()}
    solver = torch.optim.LBFGS(
        list(at.values()), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def cost() -> Tensor:
        solver.zero_grad()
        placed = family.place(prior, at, shape=prior)
        one = {k: torch.ones(1, *shape, dtype=torch.float64) for k, shape in family.noise(prior).items()}
        mean, off = family.mean(placed, tasks)["head"], family.sample(placed, one, tasks)["head"]
        total = family.kl(placed, prior)
        for i, task in enumerate(tasks if len(tasks) > 1 else tasks[:1]):
            x, y = data[task]
            m, sd = mean[i, 0], off[i, 0] - mean[i, 0]
            total = total + 0.5 * (y - x @ m).square().sum() + 0.5 * (x.square() @ sd.square()).sum()
        total.backward()  # type: ignore[no-untyped-call] # torch has no types here
        return total

    solver.step(cost)  # type: ignore[no-untyped-call] # torch has no types here
    placed = family.place(prior, {k: v.detach() for k, v in at.items()}, shape=prior)
    return family.settle(state, prior, placed, Facts(2, 0, tuple(tasks)))


@dataclass(frozen=True)
class Joint:
    """The exact posterior of Theta and every task, by name; mean (D,) and variance (D,) of each."""

    mean: Mapping[str | None, Tensor]
    variance: Mapping[str | None, Tensor]


def oracle(tasks: Sequence[str], *windows: Evidence, tau: float = TAU) -> Joint:
    """Solve Theta and all tasks as one Gaussian of (1 + tasks) * D weights."""
    names: list[str | None] = [None, *tasks]
    centre = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    eye, blocks = torch.eye(D, dtype=torch.float64) / SD**2, len(names)
    precision = torch.zeros(blocks * D, blocks * D, dtype=torch.float64)
    shift = torch.zeros(blocks * D, dtype=torch.float64)

    def block(i: int, j: int) -> tuple[slice, slice]:
        return slice(i * D, i * D + D), slice(j * D, j * D + D)

    precision[block(0, 0)] += eye
    shift[:D] += eye @ centre
    for i, name in enumerate(names[1:], start=1):
        for a, b, sign in ((0, 0, 1), (i, i, 1), (0, i, -1), (i, 0, -1)):
            precision[block(a, b)] += sign * tau * eye
        for window in windows:
            if name in window:
                x, y = window[str(name)]
                precision[block(i, i)] += x.T @ x
                shift[i * D : i * D + D] += x.T @ y
    mean, spread = torch.linalg.solve(precision, shift), torch.linalg.inv(precision).diagonal()
    return Joint(
        {n: mean[i * D : i * D + D] for i, n in enumerate(names)},
        {n: spread[i * D : i * D + D] for i, n in enumerate(names)},
    )


def belief(state: Hierarchy, task: str, family: Bora = FAMILY) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a task's weights, as drawn."""
    opened = family.open(state, [task])
    mean = family.mean(opened, [task])["head"][0, 0]
    one = {k: torch.ones(1, *shape, dtype=torch.float64) for k, shape in family.noise(opened).items()}
    return mean, (family.sample(opened, one, [task])["head"][0, 0] - mean).square()


def require_joint(state: Hierarchy, wanted: Joint, tasks: Sequence[str], family: Bora = FAMILY) -> None:
    for task in tasks:
        mean, variance = belief(state, task, family)
        torch.testing.assert_close(mean, wanted.mean[task], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(variance, wanted.variance[task], rtol=1e-5, atol=0)


def test_evidence_on_one_task_moves_an_unseen_one_by_the_analytic_amount() -> None:
    data = evidence(1, "seen")
    state = learn(start(), data)
    require_joint(state, oracle(["seen", "unseen"], data), ["seen", "unseen"])
    before, (after, _) = belief(start(), "unseen")[0], belief(state, "unseen")
    towards = belief(state, "seen")[0] - before
    assert bool((((after - before) / towards) > 0).all())
    assert bool((((after - before) / towards) < 1).all())


def test_what_is_expected_of_a_new_task_is_theta_and_how_far_tasks_lie_apart() -> None:
    windows = [evidence(i, *NAMES[: 2 + i]) for i in range(2)]
    state = learn(learn(start(), windows[0]), windows[1])
    theta = oracle(NAMES, *windows)
    mean, variance = belief(state, "never seen")
    torch.testing.assert_close(mean, theta.mean[None], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance, theta.variance[None] + SD**2 / TAU, rtol=1e-5, atol=0)


def test_tasks_of_one_window_share_at_once() -> None:
    data = evidence(2, *NAMES)
    require_joint(learn(start(), data), oracle(NAMES, data), NAMES)


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_windows_of_different_tasks_are_all_at_once_in_any_order(order: list[int]) -> None:
    windows = [evidence(i, *tasks) for i, tasks in enumerate((NAMES[:2], NAMES[2:3], NAMES[3:], NAMES[1:]))]
    state = start()
    for i in order:
        state = learn(state, windows[i])
    require_joint(state, oracle(NAMES, *windows), NAMES)


@pytest.mark.parametrize("tau", [TAU, 0.1, 50.0])
def test_a_task_seen_again_counts_its_first_evidence_once_also_after_tau_changed(tau: float) -> None:
    first, between, again = evidence(1, "a", "b"), evidence(2, "c"), evidence(3, "a", "c")
    state = learn(learn(start(), first), between)
    state = replace(state, tau={"head": torch.tensor(tau, dtype=torch.float64)})
    require_joint(state, oracle("abc", first, between, tau=tau), "abc")
    require_joint(learn(state, again), oracle("abc", first, between, again, tau=tau), "abc")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0])
def test_kl_over_tasks_is_that_of_the_gaussian_over_all_of_them(seed: int, size: float) -> None:
    """Against torch's own, weight by weight; the tasks' covariance comes through Theta."""
    state = learn(start(), evidence(seed, *NAMES[1:]))
    tasks, rng = sorted(NAMES[:3]), torch.Generator().manual_seed(seed)
    prior = FAMILY.open(state, tasks)
    at = {
        k: size * torch.randn(v.shape, generator=rng, dtype=torch.float64)
        for k, v in FAMILY.origin(prior).items()
    }
    posterior = FAMILY.place(prior, at, shape=prior)
    rest = _dense(state, tasks)
    gained = posterior.groups["head"].precision - prior.groups["head"].precision
    wanted = 0.0
    for j in range(D):
        p = torch.distributions.MultivariateNormal(
            prior.groups["head"].mean[:, 0, j], precision_matrix=rest[j]
        )
        q = torch.distributions.MultivariateNormal(
            posterior.groups["head"].mean[:, 0, j], precision_matrix=rest[j] + torch.diag(gained[:, 0, j])
        )
        wanted += float(torch.distributions.kl_divergence(q, p))
    assert float(FAMILY.kl(posterior, prior)) == pytest.approx(wanted, rel=1e-6)


def _dense(state: Hierarchy, tasks: Sequence[str]) -> list[Tensor]:
    """Return the precision over these tasks, whitened, per weight, all others integrated out densely."""
    everyone = [*tasks, *(t for t in known_tasks(state) if t not in tasks)]
    out = []
    for j in range(D):
        sites = [float(state.precision.get(site(t, "head"), torch.zeros(1, D))[0, j]) + TAU for t in everyone]
        whole = torch.diag(torch.tensor([1 + TAU * len(everyone), *sites], dtype=torch.float64))
        whole[0, 1:] = whole[1:, 0] = -TAU
        out.append(torch.linalg.inv(torch.linalg.inv(whole)[1 : 1 + len(tasks), 1 : 1 + len(tasks)]))
    return out


def test_a_shared_draw_is_the_same_within_a_task_and_another_between_tasks() -> None:
    opened = FAMILY.open(learn(start(), evidence(1, "a", "b")), ["a", "b", "c"])
    noise = normals(FAMILY.noise(opened), 1, seed=2)
    rows = FAMILY.sample(opened, noise, ["b", "a", "b", "c"])["head"]
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[1], rows[3])
    alone = FAMILY.sample(opened, noise, ["a"])["head"]
    assert torch.equal(alone[0], rows[1])  # whoever else is asked about


@pytest.mark.parametrize("beta", [0.9, 0.3])
def test_forgetting_is_the_power_prior_of_theta_and_all_tasks(beta: float) -> None:
    windows = [evidence(1, "a", "b"), evidence(2, "c")]
    state = learn(learn(start(), windows[0]), windows[1])
    weaker = [{t: (x * beta**0.5, y * beta**0.5) for t, (x, y) in w.items()} for w in windows]
    require_joint(FAMILY.forget(state, start(), beta=beta), oracle("abcd", *weaker), "abcd")


def test_what_was_learned_of_tau_is_forgotten_by_the_same_power() -> None:
    """It ends at the guess, where the base has it: nothing jumps where the last evidence goes."""
    family = replace(FAMILY, learn_apart=True)
    base = start(family)
    state = learn(base, evidence(1, "a", "b", "c", size=60), family)
    kept = [float(family.forget(state, base, beta=beta).tau["head"]) for beta in (1.0, 0.7, 0.2, 1e-9)]
    goal = float(base.tau["head"])
    assert kept[0] != pytest.approx(goal, rel=0.01)
    assert [abs(t - goal) for t in kept] == sorted((abs(t - goal) for t in kept), reverse=True)
    assert kept[-1] == pytest.approx(goal)
    fixed = FAMILY.forget(learn(start(), evidence(1, "a", "b")), start(), beta=0.3)
    assert torch.equal(fixed.tau["head"], start().tau["head"])


def test_forgetting_everything_returns_the_base_without_tasks() -> None:
    base = start()
    assert FAMILY.forget(learn(base, evidence(1, "a")), base, beta=0.0) is base


@settings(max_examples=50, deadline=None)
@given(tasks=st.sets(st.text(max_size=8), min_size=1, max_size=4))
def test_tasks_may_be_called_anything(tasks: set[str]) -> None:
    family, names = Bora(), sorted(tasks)
    state = family.base(slots(2), seed=1, centres={})
    prior = family.open(state, names)
    at = {k: torch.full_like(v, 0.1) for k, v in family.origin(prior).items()}
    at["own/head"] += torch.arange(len(names))[:, None, None]
    state = family.settle(state, prior, family.place(prior, at, shape=prior), Facts(2, 0, tuple(names)))
    back = family.restore(from_bytes(to_bytes(tensors_of(state))))
    assert known_tasks(back) == names
    assert to_bytes(tensors_of(back)) == to_bytes(tensors_of(state))
    ours, theirs = (family.mean(family.open(s, names), names) for s in (back, state))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert len({tuple(row.flatten().tolist()) for row in ours["head"]}) == len(names)


def test_a_new_class_gets_a_row_of_theta_and_of_every_task() -> None:
    family = Bora()
    prior = family.open(family.base(slots(2), seed=1, centres={}), ["a", "b"])
    at = {k: torch.full_like(v, 0.5) for k, v in family.origin(prior).items()}
    base = family.base(slots(2), seed=1, centres={})
    state = family.settle(base, prior, family.place(prior, at, shape=prior), Facts(2, 0, ("a", "b")))
    wider = family.base(slots(4), seed=1, centres={})
    tasks = ["a", "b", "c"]
    grown, old, new = (
        family.mean(family.open(s, tasks), tasks)["head"] for s in (family.grow(state, wider), state, wider)
    )
    assert torch.equal(grown[:, :2], old.expand(3, -1, -1))
    assert torch.equal(grown[:, 2:], new[:, 2:].expand(3, -1, -1))


@pytest.mark.parametrize("seed", range(10))
def test_evidence_is_never_negative(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    state = learn(start(), evidence(1, "a", "b"))
    prior = FAMILY.open(state, ["a", "b"])
    at = {k: torch.randn(v.shape, generator=rng) for k, v in FAMILY.origin(prior).items()}
    moved = FAMILY.settle(state, prior, FAMILY.place(prior, at, shape=prior), Facts(2, 0, ("a", "b")))
    assert all(bool((moved.precision[k] >= state.precision[k]).all()) for k in state.precision)


# How far tasks lie apart


def spread_out(apart: float, known: float, *, tasks: int = 8, weights: int = 500) -> tuple[Tensor, Tensor]:
    """Return sites of tasks drawn around a Theta of deviation 1, seen with precision `known`."""
    rng = torch.Generator().manual_seed(4)
    theta = torch.randn(weights, generator=rng, dtype=torch.float64)
    own = theta + apart * torch.randn(tasks, weights, generator=rng, dtype=torch.float64)
    seen = own + known**-0.5 * torch.randn(tasks, weights, generator=rng, dtype=torch.float64)
    precision = torch.full_like(seen, known)
    return precision, precision * seen


@pytest.mark.parametrize("apart", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("known", [10.0, 1000.0])
def test_tau_is_what_the_tasks_were_drawn_with(apart: float, known: float) -> None:
    found = learned_tau(*spread_out(apart, known), 4.0, guess=4.0, weights=20.0)
    assert found == pytest.approx(apart**-2, rel=0.25)  # the guess still weighs a little


def test_tau_does_not_move_without_evidence() -> None:
    """Expecting |x_d - Theta|^2 as if the two were independent would let it fall here."""
    nothing = torch.zeros(5, 400, dtype=torch.float64)
    assert learned_tau(nothing, nothing, 0.3, guess=4.0, weights=20.0) == pytest.approx(4.0)
    precision, shift = (part[:, :20] for part in spread_out(1.0, 100.0, tasks=5))
    alone = learned_tau(precision, shift, 4.0, guess=4.0, weights=20.0)
    padded = learned_tau(
        torch.cat([precision, nothing], dim=1),
        torch.cat([shift, nothing], dim=1),
        4.0,
        guess=4.0,
        weights=20.0,
    )
    assert padded == pytest.approx(alone, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(slope=st.floats(-4, 3), curvature=st.floats(-6, 2), begins=st.floats(-4, 2), seed=st.integers(0, 99))
def test_tau_lets_no_task_lie_further_than_twice_where_the_guess_has_it(
    slope: float, curvature: float, begins: float, seed: int
) -> None:
    """Whatever sites say: a slope without curvature says that there is no end, and nobody looked there."""
    rng, guess = torch.Generator().manual_seed(seed), 4.0
    precision = 10**curvature * torch.rand(4, 300, generator=rng, dtype=torch.float64)
    shift = 10**slope * torch.randn(4, 300, generator=rng, dtype=torch.float64)
    tau = learned_tau(precision, shift, 10**begins, guess=guess, weights=20.0)
    far, there = (
        float(gap(precision, shift, torch.tensor(t, dtype=torch.float64)).norm()) for t in (tau, guess)
    )
    assert far <= 2 * there * (1 + 1e-9)


def test_a_window_that_knew_slopes_alone_leaves_its_tasks_about_where_it_left_them() -> None:
    family = Bora()
    base = family.base((Slot("head", (40, 50), "head"),), seed=1, centres={})
    prior = family.open(base, ["a", "b"])
    at = {k: torch.zeros_like(v) for k, v in family.origin(prior).items()}
    at["own/head"] = torch.randn(2, 40, 50, generator=torch.Generator().manual_seed(1))
    placed = family.place(prior, at, shape=prior)
    state = family.settle(base, prior, placed, Facts(2, 0, ("a", "b")))
    before, after = (family.mean(b, ["a", "b"])["head"] for b in (placed, family.open(state, ["a", "b"])))
    assert float(after.norm()) <= 2 * float(before.norm()) * (1 + 1e-6)
    assert float(state.tau["head"]) > 0


@pytest.mark.parametrize("apart", [0.3, 2.0])
def test_tau_is_the_fixed_point_of_its_gamma(apart: float) -> None:
    """Against a + n D / 2 over b + sum E / 2 with E from the dense Gaussian over Theta and tasks."""
    precision, shift = spread_out(apart, 5.0, tasks=3, weights=40)
    guess, weights = 2.0, 6.0
    found = learned_tau(precision, shift, guess, guess=guess, weights=weights)
    far = torch.zeros((), dtype=torch.float64)
    for j in range(precision.shape[1]):
        whole = torch.diag(torch.cat([torch.tensor([1 + 3 * found]), precision[:, j] + found]).double())
        whole[0, 1:] = whole[1:, 0] = -found
        spread = torch.linalg.inv(whole)
        mean = spread @ torch.cat([torch.zeros(1).double(), shift[:, j]])
        gap = torch.cat([-torch.ones(3, 1), torch.eye(3)], dim=1).double()
        far += (gap @ mean).square().sum() + (gap @ spread @ gap.T).trace()
    n = precision.numel()
    assert found == pytest.approx(float((weights / 2 + n / 2) / (weights / (2 * guess) + far / 2)), rel=1e-4)


def test_one_task_says_nothing_of_how_far_tasks_lie_apart() -> None:
    family = replace(FAMILY, learn_apart=True)
    one = learn(start(family), evidence(1, "a"), family)
    assert float(one.tau["head"]) == pytest.approx(TAU)
    assert float(learn(one, evidence(2, "b"), family).tau["head"]) != pytest.approx(TAU, rel=0.01)


def test_tau_depends_on_the_evidence_and_not_on_its_order() -> None:
    family = replace(FAMILY, learn_apart=True)
    windows = [evidence(i, *tasks) for i, tasks in enumerate((NAMES[:2], NAMES[2:3], NAMES[1:]))]
    found = []
    for order in itertools.permutations(windows):
        state = start(family)
        for window in order:
            state = learn(state, window, family)
        found.append(float(state.tau["head"]))
        require_joint(state, oracle(NAMES, *windows, tau=found[-1]), NAMES, family)
    assert found == pytest.approx([found[0]] * len(found), rel=1e-3)


# The paper's points


@pytest.mark.parametrize("tau", [0.01, TAU, 100.0])
def test_map_reaches_the_paper_s_optimum(tau: float) -> None:
    """Minimise over points sum_d nll_d + tau/2 |theta_d - Theta|^2, Theta's own prior beside it."""
    family, data = replace(FAMILY, fit="map", apart=tau**-0.5), evidence(5, *NAMES)
    state = learn(start(family), data, family)
    assert not family.noise(family.open(state, NAMES))
    wanted = oracle(NAMES, data, tau=tau)
    for task in NAMES:
        torch.testing.assert_close(belief(state, task, family)[0], wanted.mean[task], rtol=1e-5, atol=1e-6)


def test_map_learns_no_tau_and_keeps_no_spread() -> None:
    family = replace(FAMILY, fit="map", learn_apart=True)
    state = learn(start(family), evidence(5, *NAMES), family)
    assert float(state.tau["head"]) == pytest.approx(TAU)
    assert all(not bool(v.any()) for v in state.precision.values())
