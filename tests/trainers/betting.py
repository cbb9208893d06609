"""Events to bet on, and the equations of the bet over many streams at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.wager import CLIP, FRACTIONS, Paired, Wager, count_all

OPEN = Wager(challenger="head", incumbent="champion", since=3)


def told(gain: float, place: int, *, arrived: int = 3) -> Paired:
    return Paired(
        event_id=f"e{place}",
        window=max(3, arrived),
        place=place,
        arrived=arrived,
        challenger=max(0.0, -gain),
        incumbent=max(0.0, gain),
    )


def counted(gains: Sequence[float], wager: Wager = OPEN) -> Wager:
    return count_all(wager, (told(gain, place) for place, gain in enumerate(gains)))


def normals(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coins(p: Tensor, *, seed: int) -> Tensor:
    return torch.rand(p.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < p


def log_e(gains: Tensor, *, nats: Tensor | float = 0.0, side: int = 1) -> Tensor:
    """Return the log e-value after each event (streams, events), against a mean so far of `nats`."""
    x = side * gains.clamp(-CLIP, CLIP) / CLIP
    n = torch.arange(1, gains.shape[1] + 1, dtype=torch.float64)
    f = torch.tensor(FRACTIONS, dtype=torch.float64)[:, None, None]
    wealth = torch.log1p(f * x).cumsum(-1) - f * n * side * nats / CLIP
    return wealth.logsumexp(0) - math.log(len(FRACTIONS))


def log_e_lately(gains: Tensor) -> Tensor:
    """Return the log e-value of bets against the challenger begun before each event, started afresh."""
    x = -gains.clamp(-CLIP, CLIP) / CLIP
    n = torch.arange(1, gains.shape[1] + 1, dtype=torch.float64)
    f = torch.tensor(FRACTIONS, dtype=torch.float64)[:, None, None]
    logs = torch.log1p(f * x).cumsum(-1)
    before = torch.cat([torch.zeros_like(logs[..., :1]), logs[..., :-1]], dim=-1)
    begun = logs + (-before - (n * (n + 1)).log()).logcumsumexp(-1)
    wealth = begun.logsumexp(0) - math.log(len(FRACTIONS))
    return torch.logaddexp(wealth, -(n + 1).log())
