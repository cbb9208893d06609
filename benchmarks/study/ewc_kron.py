"""Online elastic weight consolidation whose penalty knows correlations: Kronecker factors by slot.

    loss_t = mean nll + 0.5 strength / N_t  sum_slots tr(D' S D A) / tr A          D = W - W(t-1)
    S += sum_n g_n g_n'    (rows: what a layer gives)      A += sum_n g_n' g_n    (columns: what it is given)

with g_n (m, n) the gradient of one text under labels drawn from the model's own predictive; both factors are
summed over windows, and there is one centre, yesterday's weights. At strength 1 it is the Laplace
approximation with precision S (x) A / tr A, carried on.

What is approximated. KFAC's factors are second moments of a layer's inputs a and of its output gradients d,
token by token. A text's gradient is sum_tokens d a', in which the two are no longer apart, so here they are
the partial traces of sum_n vec(g_n) vec(g_n)': each side is weighed by how large the other was. Class rows
read one pooled input of constant length, g_n = d a': there S is KFAC's own up to its scale, and A its inputs
weighed by |d|^2. The scale is not approximated: the trace of S (x) A / tr A is sum_n |g_n|^2. It is exact for
slots of one row, and where rows and columns of g are independent. Nor is a sum over windows of products the
product of sums by which it is replaced; that every online penalty with such factors has.

Sources: Martens and Grosse, ICML 2015, arXiv:1503.05671 (KFAC); Ritter, Botev and Barber, NeurIPS 2018,
arXiv:1805.07810 (as a penalty against forgetting).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import grow_rows


@dataclass(frozen=True)
class Factored:
    """Weights (m, n), and the factors S (m, m) and A (n, n) of what is known of them; both have one trace."""

    point: Tensors
    rows: Tensors
    columns: Tensors


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EwcKron:
    """The family; `scale` only sets the unit of a step, as `posterior.point` does."""

    strength: float = 1.0
    scale: float = 0.02
    name: str = "benchmarks.study.ewc_kron:EwcKron"

    @property
    def curved(self) -> bool:
        """Information is counted, not learned by gradients."""
        return True

    def restore(self, tensors: Tensors) -> Factored:
        """Return the state that was flattened."""
        return state_of(Factored, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Factored:
        """Return random directions for A and zeros elsewhere, of which nothing is known."""
        return Factored(
            point={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            rows={s.name: torch.zeros(s.shape[0], s.shape[0]) for s in slots},
            columns={s.name: torch.zeros(s.shape[1], s.shape[1]) for s in slots},
        )

    def grow(self, state: Factored, base: Factored) -> Factored:
        """Return the state with new class rows at 0, free to move."""
        return Factored(
            {k: grow_rows(v, base.point[k]) for k, v in state.point.items()},
            {k: _padded(v, len(base.rows[k])) for k, v in state.rows.items()},
            state.columns,
        )

    def forget(self, state: Factored, base: Factored, *, beta: float) -> Factored:
        """Return the state with so much of its information."""
        del base
        if beta == 1.0:
            return state
        rows, columns = ({k: beta * v for k, v in side.items()} for side in (state.rows, state.columns))
        return Factored(state.point, rows, columns)

    def open(self, state: Factored, tasks: Sequence[str]) -> Factored:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Factored) -> Tensors:
        """Return zero coordinates for every slot."""
        return {f"point/{k}": torch.zeros_like(v) for k, v in prior.point.items()}

    def place(self, prior: Factored, coordinates: Tensors, *, shape: Factored) -> Factored:
        """Return the weights moved by scale times the coordinates."""
        moved = {k: v + self.scale * coordinates[f"point/{k}"] for k, v in prior.point.items()}
        return Factored(moved, shape.rows, shape.columns)

    def noise(self, state: Factored) -> Mapping[str, tuple[int, ...]]:
        """Return nothing: a point needs no noise."""
        del state
        return {}

    def sample(self, state: Factored, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del noise
        return self.mean(state, tasks)

    def mean(self, state: Factored, tasks: Sequence[str]) -> Draw:
        """Return the weights."""
        del tasks
        return {k: v.unsqueeze(0) for k, v in state.point.items()}

    def kl(self, state: Factored, prior: Factored) -> Tensor:
        """Return what is charged for having moved, in nats; no divergence, for a point has none."""
        total = torch.zeros((), dtype=torch.float64)
        for k, v in state.point.items():
            moved = v.double() - prior.point[k].double()
            total = total + 0.5 * self.strength * _charge(moved, prior.rows[k], prior.columns[k])
        return total

    def marginal(self, state: Factored, slots: Collection[str]) -> Factored:
        """Return the part of the state."""
        return part_of(state, slots)

    def absorb(self, prior: Factored, state: Factored, rows: Tensors) -> tuple[Factored, float]:
        """Return the weights with the partial traces of the rows counted in."""
        of_rows = {k: v + torch.einsum("nij,nkj->ik", rows[k], rows[k]) for k, v in prior.rows.items()}
        of_columns = {k: v + torch.einsum("nji,njk->ik", rows[k], rows[k]) for k, v in prior.columns.items()}
        return Factored(state.point, of_rows, of_columns), 0.0

    def settle(self, state: Factored, prior: Factored, posterior: Factored, facts: Facts) -> Factored:
        """Return where the window ended."""
        del state, prior, facts
        return posterior


def _charge(moved: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return tr(D' S D A) / tr A for D (m, n), float64; 0 where nothing is known."""
    whole = columns.double().trace()
    if not whole > 0:
        return moved.new_zeros(())
    return ((rows.double() @ moved) * (moved @ columns.double())).sum() / whole


def _padded(rows: Tensor, size: int) -> Tensor:
    missing = size - len(rows)
    return torch.nn.functional.pad(rows, (0, missing, 0, missing)) if missing else rows
