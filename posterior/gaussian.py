"""Diagonal Gaussians over slots beside point estimates: the state several families share.

`mean` and `log_sd` hold the random slots, `point` those that are estimated without a distribution. Which
slot is which is the family's choice. A point has no prior: a family that lets one move must say what
then anchors it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from posterior.divergence import gaussian_kl
from posterior.family import Draw, Slot, Tensors
from posterior.forgetting import power_prior


@dataclass(frozen=True)
class Diagonal:
    """Means and log standard deviations of random slots, values of point slots, and flags.

    `flags` are small integer tensors that belong to the belief (BLoB: is B frozen).
    """

    mean: Tensors
    log_sd: Tensors
    point: Tensors
    flags: Tensors


# Slots that start as random directions; all others start at 0, where their site changes nothing yet.
_DIRECTED: Final = ("down", "adapter_down", "prefix_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Prior standard deviations of one weight by the kind of slot; adapters share LoRA's."""

    down: float
    up: float
    prefix: float
    head: float

    def of(self, slot: Slot) -> float:
        """Return the deviation of this slot's weights."""
        kind = slot.role.removeprefix("adapter_").removesuffix("_key").removesuffix("_value")
        return {"down": self.down, "up": self.up, "prefix": self.prefix, "head": self.head}[kind]


def directions(slot: Slot, *, seed: int) -> Tensor:
    """Return LoRA's usual random A: uniform(-1/sqrt(d_in), 1/sqrt(d_in)), keyed by seed and slot name.

    Keyed by name, so that growing the head or adding a site leaves every other slot's start as it was.
    """
    rng = torch.Generator().manual_seed((seed << 32) ^ zlib.crc32(slot.name.encode()) & 0x7FFFFFFF)
    bound = 1 / math.sqrt(slot.shape[-1])
    return (torch.rand(slot.shape, generator=rng) * 2 - 1) * bound


def centre(slot: Slot, *, seed: int, centres: Tensors) -> Tensor:
    """Return where a slot's base lies: at a warm start's weights, random directions, or 0."""
    if slot.name in centres:
        return centres[slot.name]
    return directions(slot, seed=seed) if slot.role in _DIRECTED else torch.zeros(slot.shape)


def grow_rows(tensor: Tensor, base: Tensor) -> Tensor:
    """Append the rows that `tensor` lacks from `base`; the first axis is the only one that may grow."""
    have = tensor.shape[0]
    if base.shape[0] < have or tensor.shape[1:] != base.shape[1:]:
        msg = f"cannot grow {tuple(tensor.shape)} to {tuple(base.shape)}: only rows may be added"
        raise ValueError(msg)
    return tensor if base.shape[0] == have else torch.cat([tensor, base[have:]])


def grow(state: Diagonal, base: Diagonal) -> Diagonal:
    """Return `state` over base's slots."""
    return Diagonal(
        mean={k: grow_rows(v, base.mean[k]) for k, v in state.mean.items()},
        log_sd={k: grow_rows(v, base.log_sd[k]) for k, v in state.log_sd.items()},
        point={k: grow_rows(v, base.point[k]) for k, v in state.point.items()},
        flags=state.flags,
    )


def forget(state: Diagonal, base: Diagonal, *, beta: float) -> Diagonal:
    """Return the power prior of the random slots; points are no belief and stay."""
    if beta == 1.0:
        return state
    pairs = {
        k: power_prior(state.mean[k], state.log_sd[k], base.mean[k], base.log_sd[k], beta=beta)
        for k in state.mean
    }
    return Diagonal(
        mean={k: m for k, (m, _) in pairs.items()},
        log_sd={k: s for k, (_, s) in pairs.items()},
        point=state.point,
        flags=state.flags,
    )


def origin(prior: Diagonal, *, moving: Sequence[str]) -> Tensors:
    """Return zero coordinates: one for each mean, deviation and moving point."""
    return {
        **{f"mean/{k}": torch.zeros_like(v) for k, v in prior.mean.items()},
        **{f"log_sd/{k}": torch.zeros_like(v) for k, v in prior.log_sd.items()},
        **{f"point/{k}": torch.zeros_like(prior.point[k]) for k in moving},
    }


def place(prior: Diagonal, coordinates: Tensors, *, point_scale: float) -> Diagonal:
    """Return the state at coordinates u: mean m + sd*u, log deviation s + u, point b + point_scale*u.

    In these coordinates KL is 0.5*expm1(2d) - d + 0.5 u^2: the same bowl for every weight, so that one
    step size fits narrow and wide priors alike. In raw weights a step good for a deviation of .1
    diverges at .001.
    """
    return Diagonal(
        mean={k: m + torch.exp(prior.log_sd[k]) * coordinates[f"mean/{k}"] for k, m in prior.mean.items()},
        log_sd={k: s + coordinates[f"log_sd/{k}"] for k, s in prior.log_sd.items()},
        point={
            k: b + point_scale * coordinates[f"point/{k}"] if f"point/{k}" in coordinates else b
            for k, b in prior.point.items()
        },
        flags=prior.flags,
    )


def noise(state: Diagonal) -> Mapping[str, tuple[int, ...]]:
    """Return one standard normal per random weight."""
    return {k: tuple(v.shape) for k, v in sorted(state.mean.items())}


def sample(state: Diagonal, noise: Tensors) -> Draw:
    """Return mean + sd * noise for random slots, (n, *shape); points with n = 1."""
    random = {k: m + torch.exp(state.log_sd[k]) * noise[k] for k, m in state.mean.items()}
    return random | {k: b.unsqueeze(0) for k, b in state.point.items()}


def mean(state: Diagonal) -> Draw:
    """Return the mean weights with n = 1."""
    return {k: v.unsqueeze(0) for k, v in (*state.mean.items(), *state.point.items())}


def kl(state: Diagonal, prior: Diagonal) -> Tensor:
    """Return the sum of the random slots' Gaussian divergences in nats."""
    total = torch.zeros((), dtype=torch.float64)
    for k in state.mean:
        total = total + gaussian_kl(state.mean[k], state.log_sd[k], prior.mean[k], prior.log_sd[k])
    return total
