"""Gaussians of tasks under a shared Gaussian, weight by weight, with each task's evidence kept apart.

In units of the base prior, x = (theta - m0) / sd0, every weight by itself:

    Theta ~ N(0, 1)      x_d | Theta ~ N(Theta, 1/tau)      evidence of task d: exp(h_d x_d - L_d x_d^2 / 2)

Precision L_d and shift h_d are the task's *site*. They alone are stored; all else is derived from them
under the present tau, so nothing can be counted twice, and a tau learned later tells every old window
anew. A site reaches Theta as a message of precision L tau / (L + tau) and shift tau h / (L + tau): no
division by L, for a site may know a direction and no curvature.

A window works on the tasks it holds, jointly, with Theta integrated out. Let t_d be their site precisions,
a_d = t_d + tau, and R, S precision and shift of Theta without them. Then

    precision of Theta     Q = R + sum t_d tau / a_d
    mean of Theta          M = (S + tau sum m_d) / (R + k tau)         m_d: means of the k tasks
    variance of x_d        v_d = 1 / a_d + (tau / a_d)^2 / Q
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from posterior.family import Tensors

_ROUNDS: Final = 100  # tau is at its fixed point long before, unless tasks can hardly be told apart
_SETTLED: Final = 1e-6  # relative change of tau that counts as none
_REACH: Final = 2.0  # half of a task's way from Theta was looked at while it was learned
_NEVER: Final = 1e-12  # share of the guess that tau is never below
_HALVINGS: Final = 30  # of the logarithm of tau between the two


@dataclass(frozen=True)
class Hierarchy:
    """What a chain hands on: base prior of Theta by slot, sites by `task/slot`, tau by slot.

    A task may be called anything, slashes and nothing included: only the last slash separates.
    """

    mean: Tensors
    log_sd: Tensors
    precision: Tensors
    shift: Tensors
    tau: Tensors


@dataclass(frozen=True)
class Group:
    """One slot of the tasks at work: R and S (*shape), tau (), t and m (k, *shape), all float64."""

    rest_precision: Tensor
    rest_shift: Tensor
    tau: Tensor
    precision: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Opened:
    """The tasks at work, in the order in which groups stack them; `centre` and `sd` give back the units."""

    tasks: tuple[str, ...]
    centre: Tensors
    sd: Tensors
    groups: Mapping[str, Group]


def site(task: str, slot: str) -> str:
    """Return the key of a task's site."""
    return f"{task}/{slot}"


def known_tasks(state: Hierarchy) -> list[str]:
    """Return the tasks that have sites, sorted."""
    return sorted({key.rpartition("/")[0] for key in state.precision})


def stacked(tensors: Tensors, tasks: Sequence[str], slot: str, like: Tensor) -> Tensor:
    """Return the tasks' tensors of a slot as (k, *shape) in float64; zeros for a task without a site."""
    nothing = torch.zeros(like.shape, dtype=torch.float64)
    rows = [tensors.get(site(task, slot), nothing).double() for task in tasks]
    return torch.stack(rows) if rows else nothing.expand(0, *like.shape)


def group(state: Hierarchy, slot: str, tasks: Sequence[str]) -> Group:
    """Return the joint belief about these tasks' weights of a slot, known before or not.

    Their own messages are not in R and S: that is what dividing an old message out comes to.
    """
    like, tau = state.mean[slot], state.tau[slot].double()
    others = [task for task in known_tasks(state) if task not in set(tasks)]
    theirs, pull = (stacked(part, others, slot, like) for part in (state.precision, state.shift))
    rest_precision = 1 + (theirs * tau / (theirs + tau)).sum(dim=0)
    rest_shift = (tau * pull / (theirs + tau)).sum(dim=0)
    precision, shift = (stacked(part, tasks, slot, like) for part in (state.precision, state.shift))
    own = precision + tau
    told = rest_precision + (precision * tau / own).sum(dim=0)
    centre = (rest_shift + (tau * shift / own).sum(dim=0)) / told
    return Group(rest_precision, rest_shift, tau, precision, (shift + tau * centre) / own)


def told_of_theta(g: Group) -> Tensor:
    """Return Q, the precision of Theta given everything, (*shape)."""
    return g.rest_precision + (g.precision * g.tau / (g.precision + g.tau)).sum(dim=0)


def mean_of_theta(g: Group) -> Tensor:
    """Return M, the mean of Theta given the tasks' means, (*shape)."""
    return (g.rest_shift + g.tau * g.mean.sum(dim=0)) / (g.rest_precision + len(g.mean) * g.tau)


def variance(g: Group) -> Tensor:
    """Return v_d, the variance of each task's weights, (k, *shape)."""
    own = g.precision + g.tau
    return 1 / own + (g.tau / own).square() / told_of_theta(g)


def shift(g: Group) -> Tensor:
    """Return the sites' shifts that make the tasks' means what they are, (k, *shape)."""
    return g.precision * g.mean + g.tau * (g.mean - mean_of_theta(g))


def stretched(g: Group, *, shared: Tensor, own: Tensor) -> Tensor:
    """Return means moved by `shared` (*shape) deviations of Theta and `own` (k, *shape) of each task.

    Two kinds of step, because a common move is cheap and a move apart costs tau: in deviations of single
    tasks the bowl would be as narrow as tasks are alike.
    """
    precision = g.precision + g.tau
    return g.mean + (g.tau / precision) * told_of_theta(g).rsqrt() * shared + precision.rsqrt() * own


def mean_kl(q: Group, p: Group) -> Tensor:
    """Return the part of KL(q || p) over the k tasks jointly that their means cost, in nats.

    0.5 d'Kd with K = diag(t + tau) - tau^2 11' / (R + k tau), written without cancellation: what each
    task moved, how far they moved apart, and how far Theta had to follow.
    """
    moved = q.mean - p.mean
    common = p.tau * moved.sum(dim=0) / (p.rest_precision + len(moved) * p.tau)
    apart = p.precision * moved.square() + p.tau * (moved - common).square()
    return 0.5 * (apart.sum() + (p.rest_precision * common.square()).sum())


def spread_kl(q: Group, p: Group) -> Tensor:
    """Return the rest: 0.5 [sum log(a_q / a_p) + log(Q_q / Q_p) - sum (t_q - t_p) v_q], 0 at equality."""
    gained = q.precision - p.precision
    logs = (
        torch.log1p(gained / (p.precision + p.tau)).sum() + (told_of_theta(q) / told_of_theta(p)).log().sum()
    )
    return 0.5 * (logs - (gained * variance(q)).sum())


def learned_tau(precision: Tensor, shift: Tensor, tau: float, *, guess: float, weights: float) -> float:
    """Return the mean of tau ~ Gamma(a + n D/2, b + sum_d E|x_d - Theta|^2 / 2) that agrees with itself.

    Sites are (D, *shape); a = weights / 2 and b = a / guess say that the guess is worth so many weights.
    E is over x_d and Theta jointly. Taken apart, E|x_d - Theta|^2 would hold v_d + v_Theta without their
    covariance, which exceeds 1/tau wherever nothing is known, so that tau would fall without evidence.
    With it, a weight without evidence says 1/tau, and drops out of the fixed point
    tau = (2a + sum g) / (2b + sum (E x_d - E Theta)^2), g = (L / (L + tau)) (1 - message / precision).

    Tau falls no further than to where tasks lie `_REACH` times as far from Theta as under the guess. A site
    is what the likelihood looked like where the window looked. One of a slope h and hardly a curvature says
    x = h / tau: such sites have no fixed point once sum h^2 > weights guess / 4, tau would fall towards 0
    and send the tasks to where nobody looked. Where L exceeds the guess, no tau moves a task that far.
    """
    at, lowest = torch.tensor(tau, dtype=torch.float64), _lowest_tau(precision, shift, guess)
    for _ in range(_ROUNDS):
        message = precision * at / (precision + at)
        told = 1 + message.sum(dim=0)
        seen = (precision / (precision + at) * (1 - message / told)).sum()
        far = gap(precision, shift, at).square().sum()
        before, at = at, ((weights + seen) / (weights / guess + far)).clamp(min=lowest)
        if abs(float(at / before) - 1) < _SETTLED:
            break
    return float(at)


def gap(precision: Tensor, shift: Tensor, tau: Tensor) -> Tensor:
    """Return how far the tasks' means lie from Theta's under tau, (D, *shape)."""
    own = precision + tau
    told = 1 + (precision * tau / own).sum(dim=0)
    centre = (tau * shift / own).sum(dim=0) / told
    return (shift - precision * centre) / own


def _lowest_tau(precision: Tensor, shift: Tensor, guess: float) -> float:
    """Return the tau below which tasks lie further apart than they may; how far they lie falls with tau."""

    def far(at: float) -> float:
        return float(gap(precision, shift, torch.tensor(at, dtype=torch.float64)).square().sum())

    low, high = _NEVER * guess, guess
    most = _REACH**2 * far(guess)
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if far(middle) <= most else (middle, high)
    return high
