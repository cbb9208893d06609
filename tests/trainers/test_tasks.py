"""Tasks through the production update: what the joint Gaussian over Theta and all tasks says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from posterior.bora import Bora
from posterior.family import Draw, Facts, Slot
from posterior.hierarchy import Hierarchy
from tests.trainers.regression import Regression
from trainers.update import InProcess, Likelihood, Schedule, update

D, EACH, SD, APART = 3, 16, 0.6, 0.5
HEAD = (Slot("head", (1, D), "head"),)
FAMILY = Bora(sd_head=SD, apart=APART, learn_apart=False)
# Slow and thorough: these tests ask for the optimum, not for speed.
THOROUGH = Schedule(epochs=120, batch=24, lr=0.1, draws=4)


@dataclass(frozen=True)
class Window:
    """Examples of several tasks in one order, each of its own weights."""

    data: Regression
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """nll of an example: `steep` |w - y| summed over weights, y (N,): a slope on both sides, no curvature."""

    y: Tensor
    steep: float
    outputs: int = 1

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed nll."""
        return self.steep * (draw["head"][:, 0] - self.y[list(positions), None]).abs().sum()

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return 0: a slope does not bend."""
        del positions, signs
        return 0 * draw["head"].sum()


def window(seed: int, *tasks: str) -> Window:
    """Return examples of the tasks in turns; each task's design has orthogonal columns."""
    rng = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for _ in tasks:
        x = torch.linalg.qr(torch.randn(EACH, D, generator=rng))[0] * 3.0
        w = 1.0 + 0.5 * torch.randn(D, generator=rng)
        xs.append(x)
        ys.append(x @ w + torch.randn(EACH, generator=rng))
    turns = [i * EACH + j for j in range(EACH) for i in range(len(tasks))]
    return Window(Regression(torch.cat(xs)[turns], torch.cat(ys)[turns]), tasks * EACH)


def learn(
    state: Hierarchy, held: Window, *, world: int = 1, schedule: Schedule = THOROUGH, family: Bora = FAMILY
) -> Hierarchy:
    return learn_any(state, held.data, held.tasks, world=world, schedule=schedule, family=family)


def learn_any(
    state: Hierarchy,
    likelihood: Likelihood,
    tasks: tuple[str, ...],
    *,
    world: int = 1,
    schedule: Schedule = THOROUGH,
    family: Bora = FAMILY,
) -> Hierarchy:
    names = tuple(sorted(set(tasks)))
    prior = family.open(state, names)
    posterior, fit = update(
        family,
        prior,
        likelihood,
        examples=len(tasks),
        schedule=schedule,
        seed=1,
        window=0,
        ranks=InProcess(world),
        tasks=tasks,
    )
    assert fit.kl > 0
    return family.settle(state, prior, posterior, Facts(2, 0, names))


def base() -> Hierarchy:
    return FAMILY.base(HEAD, seed=1, centres={})


def exact(names: Sequence[str], *held: Window, tau: float = APART**-2) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Solve Theta and all tasks densely; mean and deviation of every task's weights."""
    links = torch.eye(1 + len(names), dtype=torch.float64) * tau
    links[0, 0] = 1 + tau * len(names)
    links[0, 1:] = links[1:, 0] = -tau
    precision = torch.kron(links, torch.eye(D, dtype=torch.float64) / SD**2)
    shift = torch.zeros(len(links) * D, dtype=torch.float64)
    for one in held:
        for x, y, name in zip(one.data.x.double(), one.data.y.double(), one.tasks, strict=True):
            at = slice((1 + names.index(name)) * D, (2 + names.index(name)) * D)
            precision[at, at] += torch.outer(x, x)
            shift[at] += x * y
    mean = torch.linalg.solve(precision, shift).reshape(-1, D)
    sd = torch.linalg.inv(precision).diagonal().sqrt().reshape(-1, D)
    return {name: (mean[1 + i], sd[1 + i]) for i, name in enumerate(names)}


def require_close(state: Hierarchy, wanted: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Compare means in posterior deviations, and the logarithms of deviations."""
    for task, (mean, sd) in wanted.items():
        opened = FAMILY.open(state, [task])
        found = FAMILY.mean(opened, [task])["head"][0, 0].double()
        off = FAMILY.sample(opened, {"head": torch.ones(1, 1, D)}, [task])["head"][0, 0].double() - found
        assert float(((found - mean) / sd).abs().max()) < 0.25, task
        assert float((off / sd).log().abs().max()) < 0.12, task


@pytest.fixture(scope="module")
def first() -> Window:
    return window(1, "a", "b/1")


@pytest.fixture(scope="module")
def learned(first: Window) -> Hierarchy:
    return learn(base(), first)


def test_tasks_of_a_window_and_one_never_seen(first: Window, learned: Hierarchy) -> None:
    require_close(learned, exact(["a", "b/1", "never"], first))


def test_windows_of_different_tasks_are_both_at_once_in_either_order(
    first: Window, learned: Hierarchy
) -> None:
    other = window(2, "", "c")
    wanted = exact(["a", "b/1", "", "c", "never"], first, other)
    require_close(learn(learned, other), wanted)
    require_close(learn(learn(base(), other), first), wanted)


@pytest.mark.parametrize("tau", [APART**-2, 0.5, 40.0])
def test_a_task_seen_again_counts_its_first_evidence_once(
    first: Window, learned: Hierarchy, tau: float
) -> None:
    """Also where tau has changed since: its old evidence then comes under the new one."""
    again = window(3, "b/1", "c")
    changed = replace(learned, tau={"head": torch.tensor(tau, dtype=torch.float64)})
    require_close(learn(changed, again), exact(["a", "b/1", "c", "never"], first, again, tau=tau))


@pytest.mark.parametrize("world", [2, 3])
def test_workers_change_rounding_only(first: Window, world: int) -> None:
    """Batches of 7 make unequal shards, which hold other tasks on other ranks."""
    quick = Schedule(epochs=2, batch=7, lr=0.05)
    alone, together = (learn(base(), first, world=w, schedule=quick) for w in (1, world))
    for key, site in alone.precision.items():
        torch.testing.assert_close(site, together.precision[key], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.shift[key], together.shift[key], atol=1e-4, rtol=1e-4)


def test_the_tasks_of_examples_are_what_matters(first: Window, learned: Hierarchy) -> None:
    """The same examples under swapped names give the same beliefs under swapped names."""
    swapped = Window(first.data, tuple({"a": "b/1", "b/1": "a"}[t] for t in first.tasks))
    other = learn(base(), swapped)
    for key, site in learned.precision.items():
        twin = key.replace("a/head", "-").replace("b/1/head", "a/head").replace("-", "b/1/head")
        torch.testing.assert_close(site, other.precision[twin])


def test_a_slope_without_curvature_sends_no_task_past_its_own_optimum() -> None:
    """A fold 20 prior deviations away: the sites know where to go, and nothing of how far.

    Read as Gaussian evidence such sites say that tasks lie without end apart; tau would fall, and the means
    that it lets go would cost more than those the window began with.
    """
    wide, optimum = 60, {"a": 20.0, "b": -20.0}
    head = (Slot("head", (1, wide), "head"),)
    family = Bora(sd_head=1.0, apart=APART)
    tasks = ("a", "b") * EACH
    fold = Fold(torch.tensor([optimum[t] for t in tasks]), steep=2.0 / EACH)
    start = family.base(head, seed=1, centres={})
    state = learn_any(start, fold, tasks, family=family, schedule=replace(THOROUGH, epochs=40))
    for task, y in optimum.items():
        mean = family.mean(family.open(state, [task]), [task])["head"][0, 0]
        assert bool((mean * y > 0).all())
        assert bool(((mean - y).abs() < abs(y)).all())
