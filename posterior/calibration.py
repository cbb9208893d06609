"""How good stated probabilities are: NLL, Brier, expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a bin is a plain value, and whoever reads one should not wait for torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: Tensor, correct: Tensor, *, bins: int = 15) -> list[ReliabilityBin]:
    """Bin predictions by confidence into equal widths; empty bins are left out.

    confidence (n,) in [0, 1]; correct (n,) of 0/1. A confidence on an edge falls into the lower bin,
    so 1.0 lies in the last one.
    """
    confidence, correct = confidence.double(), correct.double()
    which = (confidence * bins).ceil().clamp(1, bins).long() - 1
    out = []
    for b in range(bins):
        inside = which == b
        count = int(inside.sum())
        if count:
            out.append(
                ReliabilityBin(
                    b / bins,
                    (b + 1) / bins,
                    count,
                    float(confidence[inside].mean()),
                    float(correct[inside].mean()),
                )
            )
    return out


def ece(confidence: Tensor, correct: Tensor, *, bins: int = 15) -> float:
    """Return the expected calibration error: mean over examples of |accuracy - confidence| of their bin."""
    if confidence.numel() == 0:
        msg = "calibration of no predictions is undefined"
        raise ValueError(msg)
    table = reliability(confidence, correct, bins=bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in table) / confidence.numel()


def brier(probs: Tensor, target: Tensor) -> float:
    """Return the mean squared distance between probabilities (n, classes) and the true class (n,)."""
    exact = probs.double()
    truth = exact.new_zeros(exact.shape).scatter_(-1, target.unsqueeze(-1), 1.0)
    return float((exact - truth).square().sum(dim=-1).mean())
