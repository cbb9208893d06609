"""BoRA: tasks under a shared Gaussian (arXiv 2407.15857), made a posterior that goes on through a stream.

    Theta ~ N(m0, sd0^2)        theta_d | Theta ~ N(Theta, sd0^2 / tau)        tau ~ Gamma, one per tensor

Every task has weights of its own, and every task's evidence moves what is expected of the others: at once
within a window, and through all windows by messages to Theta (`posterior.hierarchy`). Theta is never cut
off from its tasks: what is handed on are the tasks' own sites, from which prior, posterior and Theta
follow. A task that opens in mid-stream starts at Theta, as far off as tasks have been seen to lie; one that
comes again has its old message taken out of Theta, for the prior it gets holds its own evidence already.

Against the paper, which maximises sum_d [log L(D_d | theta_d) - tau/2 |theta_d - Theta|^2] over points:

- q is a Gaussian over all tasks of a window and Theta, in the exact form prior x sites, and tau is learned.
- A site's precision never falls: a window's evidence is at least 0. A likelihood that is not log-concave
  would have it otherwise; where it does, the spread stays what it was.
- Theta has a proper prior, the base's; the paper's is flat. `sd_*` are its scales.
- `fit="map"` is the paper's: points, tau fixed at 1/apart^2, no spread. From one window to the next it
  remembers the slope of the likelihood alone, by which the first optimum is where the second window starts.

A draw gives all tasks the same normals: each task's marginal is exact, and likelihood and predictive ask
for no more. It is not a draw of their joint law.

Exact: on linear-Gaussian data of orthogonal designs, for any tasks in any windows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from torch import Tensor

from posterior import gaussian, hierarchy
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Scales
from posterior.hierarchy import Group, Hierarchy, Opened, site

_TWO_TASKS = 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bora:
    """The family; `sd_*` are prior deviations of Theta, `apart` the first guess of a task's from it.

    `apart` is in units of `sd_*`, so that tau begins at apart^-2; it counts as much as `apart_weights`
    weights of which it were known how far they lie from Theta.
    """

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.3
    sd_prefix: float = 0.1
    apart: float = 0.5
    apart_weights: float = 20.0
    learn_apart: bool = True
    fit: Literal["posterior", "map"] = "posterior"
    name: str = "bora"

    @property
    def _guess(self) -> float:
        return self.apart**-2

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Hierarchy:
        """Return the state that was flattened."""
        return state_of(Hierarchy, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Hierarchy:
        """Return p_0: Theta's A around random directions, the rest around 0; no tasks yet."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)
        return Hierarchy(
            mean={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            log_sd={s.name: torch.full(s.shape, math.log(scales.of(s))) for s in slots},
            precision={},
            shift={},
            tau={s.name: torch.tensor(self._guess, dtype=torch.float64) for s in slots},
        )

    def grow(self, state: Hierarchy, base: Hierarchy) -> Hierarchy:
        """Return the state with new class rows: Theta's as in the base, no task's with evidence."""
        return replace(
            state,
            mean={k: gaussian.grow_rows(v, base.mean[k]) for k, v in state.mean.items()},
            log_sd={k: gaussian.grow_rows(v, base.log_sd[k]) for k, v in state.log_sd.items()},
            precision=_grown(state.precision, base),
            shift=_grown(state.shift, base),
        )

    def forget(self, state: Hierarchy, base: Hierarchy, *, beta: float) -> Hierarchy:
        """Return the power prior of Theta and all tasks jointly: beta times every site.

        Base and state share Theta's prior and differ by the sites, and by what was learned of tau, which
        goes back to its guess by the same power: were it left where it is, belief about tasks nobody has
        seen would jump where the last of the evidence is forgotten.
        """
        if beta == 1.0:
            return state
        if beta == 0.0:
            return base
        return replace(
            state,
            precision={k: beta * v for k, v in state.precision.items()},
            shift={k: beta * v for k, v in state.shift.items()},
            tau={k: v * (base.tau[k] / v) ** (1 - beta) for k, v in state.tau.items()},
        )

    def open(self, state: Hierarchy, tasks: Sequence[str]) -> Opened:
        """Return the joint belief about these tasks' weights; one never seen lies around Theta."""
        return Opened(
            tasks=tuple(tasks),
            centre=state.mean,
            sd={k: v.double().exp() for k, v in state.log_sd.items()},
            groups={k: hierarchy.group(state, k, tasks) for k in sorted(state.mean)},
        )

    def origin(self, prior: Opened) -> Tensors:
        """Return zero coordinates: a shared move, each task's own, and each task's spread."""
        own = {k: torch.zeros(g.mean.shape, dtype=prior.centre[k].dtype) for k, g in prior.groups.items()}
        spread = {} if self.fit == "map" else own
        return {
            **{f"shared/{k}": torch.zeros_like(prior.centre[k]) for k in own},
            **{f"own/{k}": v for k, v in own.items()},
            **{f"spread/{k}": v for k, v in spread.items()},
        }

    def place(self, prior: Opened, coordinates: Tensors, *, shape: Opened) -> Opened:
        """Return the belief at these coordinates; a task's precision is the prior's times e^(2|u|)."""
        del shape
        return replace(prior, groups={k: self._placed(g, coordinates, k) for k, g in prior.groups.items()})

    def _placed(self, g: Group, coordinates: Tensors, slot: str) -> Group:
        shared, own = coordinates[f"shared/{slot}"].double(), coordinates[f"own/{slot}"].double()
        mean = hierarchy.stretched(g, shared=shared, own=own)
        if self.fit == "map":
            return replace(g, mean=mean)
        u = coordinates[f"spread/{slot}"].double()
        # Both branches slope away from 0, where abs() and clamp() would have no gradient to start with.
        gained = torch.expm1(2 * torch.where(u < 0, -u, u)) / hierarchy.variance(g)
        return replace(g, mean=mean, precision=g.precision + gained)

    def noise(self, state: Opened) -> Mapping[str, tuple[int, ...]]:
        """Return one standard normal per weight, the same for every task; none for points."""
        return {} if self.fit == "map" else {k: tuple(state.centre[k].shape) for k in sorted(state.centre)}

    def sample(self, state: Opened, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return each sequence the weights of its task; a shared draw gives a task the same everywhere."""
        if self.fit == "map":
            return self.mean(state, tasks)
        rows = _rows(state, tasks)
        return {k: _weights(state, k)[rows] + _deviations(state, k)[rows] * noise[k] for k in state.groups}

    def mean(self, state: Opened, tasks: Sequence[str]) -> Draw:
        """Return each sequence the mean weights of its task; n = 1 where all are of one."""
        rows = _rows(state, tasks)
        return {k: _weights(state, k)[rows] for k in state.groups}

    def kl(self, state: Opened, prior: Opened) -> Tensor:
        """Return the divergence over Theta and the tasks at work jointly; for points, what a move costs."""
        total = torch.zeros((), dtype=torch.float64)
        for k, g in state.groups.items():
            total = total + hierarchy.mean_kl(g, prior.groups[k])
            if self.fit == "posterior":
                total = total + hierarchy.spread_kl(g, prior.groups[k])
        return total

    def marginal(self, state: Opened, slots: Collection[str]) -> Opened:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Opened, state: Opened, rows: Tensors) -> tuple[Opened, float]:
        """Return the belief."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Hierarchy, prior: Opened, posterior: Opened, facts: Facts) -> Hierarchy:
        """Return the state with the new sites of the tasks at work, and tau as all sites now have it."""
        del prior, facts
        precision, shift = dict(state.precision), dict(state.shift)
        for slot, g in posterior.groups.items():
            kept, pull = g.precision.to(state.mean[slot].dtype), hierarchy.shift(g).to(state.mean[slot].dtype)
            precision |= {site(t, slot): kept[i] for i, t in enumerate(posterior.tasks)}
            shift |= {site(t, slot): pull[i] for i, t in enumerate(posterior.tasks)}
        return self._apart(replace(state, precision=precision, shift=shift))

    def _apart(self, state: Hierarchy) -> Hierarchy:
        """Return the state with tau learned; one task alone says nothing of how far tasks lie apart."""
        tasks = hierarchy.known_tasks(state)
        if len(tasks) < _TWO_TASKS or not self.learn_apart or self.fit == "map":
            return state
        return replace(state, tau={k: self._tau(state, k, tasks) for k in state.tau})

    def _tau(self, state: Hierarchy, slot: str, tasks: Sequence[str]) -> Tensor:
        like = state.mean[slot]
        learned = hierarchy.learned_tau(
            hierarchy.stacked(state.precision, tasks, slot, like),
            hierarchy.stacked(state.shift, tasks, slot, like),
            float(state.tau[slot]),
            guess=self._guess,
            weights=self.apart_weights,
        )
        return torch.tensor(learned, dtype=torch.float64)


def _grown(sites: Tensors, base: Hierarchy) -> dict[str, Tensor]:
    return {
        k: gaussian.grow_rows(v, torch.zeros_like(base.mean[k.rpartition("/")[2]])) for k, v in sites.items()
    }


def _rows(state: Opened, tasks: Sequence[str]) -> list[int]:
    """Return where each sequence's task is stacked; one row if all are of one task."""
    wanted = tasks[:1] if len(set(tasks)) == 1 else tasks
    return [state.tasks.index(task) for task in wanted]


def _weights(state: Opened, slot: str) -> Tensor:
    centre = state.centre[slot]
    return (centre.double() + state.sd[slot] * state.groups[slot].mean).to(centre.dtype)


def _deviations(state: Opened, slot: str) -> Tensor:
    return (state.sd[slot] * hierarchy.variance(state.groups[slot]).sqrt()).to(state.centre[slot].dtype)
