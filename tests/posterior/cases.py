"""Every family with what it claims, small slots to try it on, and oracles that share no code with it.

A new family is one `Case` here; the laws then attack it. A case says what its family is exact for, and
gives its belief in a form that can be checked without it: dense in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, Wishart

from examples.row_gaussian import RowGaussian, Rows
from posterior.bhpeft import BhPeft
from posterior.blob import Blob
from posterior.bora import Bora
from posterior.family import ONE_TASK, Facts, Family, Slot, Tensors
from posterior.gaussian import Diagonal
from posterior.gaussian_kron import GaussianKron
from posterior.gaussian_lowrank import GaussianLowRank
from posterior.hierarchy import Hierarchy, known_tasks, site
from posterior.kronecker import Kronecker
from posterior.lowrank import LowRank
from posterior.monteclora import Drawn, MonteClora
from posterior.point import Point

Design = Literal["any", "orthogonal", "none"]
TASK: Final = "mails/è"  # the task of hierarchical cases: its name must not be taken apart


@dataclass(frozen=True, slots=True)
class Dense:
    """A Gaussian over all random weights as one float64 vector; empty for a point."""

    mean: Tensor
    precision: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A family under test.

    `dense` turns a settled state into an explicit Gaussian over its slots in the given order. `best` is
    the family's own optimum for a linear-Gaussian window: (prior, design X / noise, y / noise) -> Dense.
    `exact` names the designs for which two windows in turn reach the posterior of both. `charged` is the
    Gaussian whose divergence `kl` is, where that is not what is drawn. `beside` gives what else the belief
    is about, in a fixed order and independent of the Gaussian: it is charged for and forgotten too.
    """

    family: Family[Any, Any]
    dense: Callable[[Any], Dense]
    best: Callable[[Dense, Tensor, Tensor], Dense]
    exact: Design
    tasks: tuple[str, ...] = (ONE_TASK,)
    charged: Callable[[Any], Dense] | None = None
    beside: Callable[[Any], Sequence[Distribution]] = lambda _: ()

    def believed(self, state: Any) -> Dense:
        """Return the Gaussian that is charged for and forgotten."""
        return (self.charged or self.dense)(state)

    def settled(self, state: Any, prior: Any, posterior: Any) -> Any:
        """Return what a window hands on."""
        return self.family.settle(state, prior, posterior, Facts(2, 0, self.tasks))


def slots(classes: int) -> tuple[Slot, ...]:
    """Return two adapted layers, an adapter, a prefix and a head: one slot of every role."""
    return (
        Slot("q.A", (2, 5), "down"),
        Slot("q.B", (4, 2), "up"),
        Slot("v.A", (2, 5), "down"),
        Slot("v.B", (4, 2), "up"),
        Slot("ffn.adapter.A", (2, 3), "adapter_down"),
        Slot("ffn.adapter.B", (3, 2), "adapter_up"),
        Slot("self.prefix.K", (2, 3), "prefix_key"),
        Slot("self.prefix.V", (2, 3), "prefix_value"),
        Slot("head", (classes, 5), "head"),
    )


def normals(shapes: Mapping[str, tuple[int, ...]], n: int, seed: int) -> dict[str, Tensor]:
    """Return noise as the trainer would."""
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.randn((n, *shape), generator=rng) for k, shape in shapes.items()}


def moved(case: Case, state: Any, *, seed: int, size: float = 0.5) -> Any:
    """Return a random working belief near a state, reached as an update would reach it."""
    family, rng = case.family, torch.Generator().manual_seed(seed)
    prior = family.open(state, case.tasks)
    at = {k: size * torch.randn(v.shape, generator=rng) for k, v in sorted(family.origin(prior).items())}
    placed = family.place(prior, at, shape=prior)
    mean = family.mean(placed, case.tasks)
    rows = {k: size * 20 * torch.randn((3, *v.shape[1:]), generator=rng) for k, v in sorted(mean.items())}
    return family.absorb(prior, placed, rows)[0]


def learned(case: Case, state: Any, *, seed: int, size: float = 0.5) -> Any:
    """Return a random state that a window might have handed on."""
    prior = case.family.open(state, case.tasks)
    return case.settled(state, prior, moved(case, state, seed=seed, size=size))


def in_double(case: Case, state: Any, tensors: Tensors) -> Any:
    """Return the state in float64."""
    del state
    return case.family.restore({k: v.double() if v.is_floating_point() else v for k, v in tensors.items()})


def _vector(tensors: Tensors) -> Tensor:
    return torch.cat([tensors[k].double().flatten() for k in sorted(tensors)] or [torch.zeros(0).double()])


def dense_diagonal(state: Diagonal) -> Dense:
    """Return a mean-field belief as a dense Gaussian."""
    return Dense(_vector(state.mean), torch.diag(torch.exp(-2 * _vector(state.log_sd))))


def dense_anchored(state: Diagonal) -> Dense:
    """Return a mean-field belief in which anchored points are Gaussians of a fixed deviation."""
    anchors = torch.full_like(_vector(state.point), Blob().sd_up ** -2)
    precision = torch.cat([torch.exp(-2 * _vector(state.log_sd)), anchors])
    return Dense(torch.cat([_vector(state.mean), _vector(state.point)]), torch.diag(precision))


def dense_lowrank(state: LowRank) -> Dense:
    """Return diag(sd^-2) + G'G, written out."""
    rows = [_vector({k: g[i] for k, g in state.factor.items()}) for i in range(state.factor["head"].shape[0])]
    factor = torch.stack(rows) if rows else torch.zeros(0, _vector(state.mean).numel()).double()
    return Dense(_vector(state.mean), torch.diag(torch.exp(-2 * _vector(state.log_sd))) + factor.T @ factor)


def dense_kron(state: Kronecker) -> Dense:
    """Return sd^-2 (I + L (x) R) of each slot, written out."""
    blocks = []
    for k in sorted(state.mean):
        product = torch.kron(state.left[k].double(), state.right[k].double())
        blocks.append(torch.exp(-2 * state.log_sd[k].double()) * (torch.eye(len(product)).double() + product))
    whole = torch.block_diag(*blocks)  # type: ignore[no-untyped-call] # torch has no types here
    return Dense(_vector(state.mean), whole)


def dense_hierarchy(state: Hierarchy) -> Dense:
    """Return the first known task's weights, by writing Theta and all tasks out weight by weight."""
    tasks = known_tasks(state) or [TASK]
    arrows = {slot: _arrow(state, slot, tasks) for slot in state.mean}
    variance = {k: torch.linalg.inv(a)[..., 1, 1] for k, (a, _) in arrows.items()}
    mean = {k: torch.linalg.solve(a, b)[..., 1] for k, (a, b) in arrows.items()}
    sd = {k: v.double().exp() for k, v in state.log_sd.items()}
    centre = _vector({k: state.mean[k].double() + sd[k] * m for k, m in mean.items()})
    return Dense(centre, torch.diag(1 / _vector({k: sd[k].square() * v for k, v in variance.items()})))


def _arrow(state: Hierarchy, slot: str, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the joint precision (*shape, 1 + D, 1 + D) and shift of Theta and the tasks, whitened."""
    shape, tau, size = state.mean[slot].shape, float(state.tau[slot]), 1 + len(tasks)
    precision = torch.zeros(*shape, size, size, dtype=torch.float64)
    pull = torch.zeros(*shape, size, dtype=torch.float64)
    precision[..., 0, 0] = 1 + tau * len(tasks)
    for d, task in enumerate(tasks, start=1):
        precision[..., d, d] = tau + state.precision.get(site(task, slot), torch.zeros(shape)).double()
        precision[..., 0, d] = precision[..., d, 0] = -tau
        pull[..., d] = state.shift.get(site(task, slot), torch.zeros(shape)).double()
    return precision, pull


def dense_drawn(state: Drawn) -> Dense:
    """Return the first two moments of what MonteCLoRA draws: Var mu + E|pi|^2 nu V."""
    variance = {k: torch.exp(2 * s.double()) for k, s in state.log_sd.items()}
    for k, root in state.log_root.items():
        alpha, scale = state.log_alpha[k].double().exp(), torch.exp(2 * root.double())
        total = alpha.sum()
        norm = (alpha.square().sum() + total) / (total * (total + 1))
        variance[k] = variance[k] + norm * state.nu[k].double() * scale[:, None]
    return Dense(_vector(state.mean), torch.diag(1 / _vector(variance)))


def dense_centres(state: Drawn) -> Dense:
    """Return MonteCLoRA's belief about the means alone."""
    return Dense(_vector(state.mean), torch.diag(torch.exp(-2 * _vector(state.log_sd))))


def beside_drawn(state: Drawn) -> list[Distribution]:
    """Return MonteCLoRA's beliefs about covariances and weights."""
    out: list[Distribution] = []
    for k, root in state.log_root.items():
        scale = torch.diag(torch.exp(2 * root.double()))
        out.append(Wishart(state.nu[k].double(), covariance_matrix=scale))
        out.append(Dirichlet(state.log_alpha[k].double().exp()))
    return out


def exact_posterior(prior: Dense, x: Tensor, y: Tensor) -> Dense:
    """Return the analytic posterior of y = x w + noise of deviation 1."""
    precision = prior.precision + x.T @ x
    return Dense(torch.linalg.solve(precision, prior.precision @ prior.mean + x.T @ y), precision)


def best_diagonal(prior: Dense, x: Tensor, y: Tensor) -> Dense:
    """Return the mean-field optimum: the exact mean, and the diagonal of the exact precision."""
    whole = exact_posterior(prior, x, y)
    return Dense(whole.mean, torch.diag(torch.diagonal(whole.precision)))


def best_point(prior: Dense, x: Tensor, y: Tensor) -> Dense:
    """Return least squares: a point has no prior."""
    del prior
    return Dense(torch.linalg.lstsq(x, y[:, None]).solution[:, 0], torch.zeros(0, 0).double())


def dense_point(state: Diagonal) -> Dense:
    """Return the points as a mean without a spread."""
    return Dense(_vector(state.point), torch.zeros(0, 0).double())


def log_ratio(q: Dense, p: Dense, n: int, seed: int) -> Tensor:
    """Return log q(x) - log p(x) for n draws x from q, from dense matrices alone."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, q.mean.numel(), generator=rng, dtype=torch.float64)
    x = q.mean + noise @ torch.linalg.inv(torch.linalg.cholesky(q.precision))
    return _log_density(q, x) - _log_density(p, x)


def log_ratio_beside(q: Sequence[Distribution], p: Sequence[Distribution], n: int, seed: int) -> Tensor:
    """Return the same, (n,), for what is believed beside the Gaussian, from torch's own distributions."""
    total = torch.zeros(n, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for ours, theirs in zip(q, p, strict=True):
            x = _sampled(ours, n)
            total = total + _log_prob(ours, x) - _log_prob(theirs, x)
    return total


def _log_prob(d: Distribution, x: Tensor) -> Tensor:
    untyped: Any = d.log_prob
    density: Tensor = untyped(x)
    return density


def _sampled(d: Distribution, n: int) -> Tensor:
    if not isinstance(d, Wishart):
        return d.sample((n,))
    rows = torch.randn(n, int(d.df), d.event_shape[0], dtype=torch.float64) @ d.scale_tril.T
    return rows.transpose(1, 2) @ rows  # torch's own sampler warns of singular draws that are not


def naturals(beside: Sequence[Distribution]) -> Tensor:
    """Return their natural parameters as one vector, up to constants that a mixture keeps."""
    return torch.cat([_naturals(d) for d in beside] or [torch.zeros(0).double()])


def _naturals(d: Distribution) -> Tensor:
    if isinstance(d, Wishart):
        return torch.cat([d.precision_matrix.flatten(), d.df.reshape(1)])
    assert isinstance(d, Dirichlet)
    return d.concentration


def _log_density(g: Dense, x: Tensor) -> Tensor:
    apart = x - g.mean
    half = torch.linalg.slogdet(g.precision).logabsdet / 2
    quadratic = ((apart @ g.precision) * apart).sum(dim=1)
    density: Tensor = half - 0.5 * quadratic - x.shape[1] / 2 * math.log(2 * math.pi)
    return density


def dense_rows(state: Rows) -> Dense:
    """Return Gaussian rows as a dense Gaussian."""
    wide = {k: state.log_sd[k].unsqueeze(-1).expand_as(v) for k, v in state.mean.items()}
    return dense_diagonal(Diagonal(state.mean, wide, {}, {}))


def best_rows(prior: Dense, x: Tensor, y: Tensor) -> Dense:
    """Return the optimum for one row: the exact mean, and the mean of the exact precision's diagonal."""
    whole = exact_posterior(prior, x, y)
    shared = torch.diagonal(whole.precision).mean()
    return Dense(whole.mean, shared * torch.eye(len(whole.mean)).double())


CASES: dict[str, Case] = {
    "bhpeft": Case(family=BhPeft(), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"),
    "bhpeft, ups anchored": Case(
        family=BhPeft(up="anchored"), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"
    ),
    "bhpeft, ups frozen": Case(
        family=BhPeft(up="frozen"), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"
    ),
    "blob": Case(family=Blob(), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"),
    "blob, B frozen": Case(
        family=Blob(b="frozen"), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"
    ),
    "blob, B anchored": Case(
        family=Blob(b="anchored"),
        dense=dense_diagonal,
        best=best_diagonal,
        exact="orthogonal",
        charged=dense_anchored,
    ),
    "blob, flipout": Case(
        family=Blob(flipout=True), dense=dense_diagonal, best=best_diagonal, exact="orthogonal"
    ),
    "bora": Case(family=Bora(), dense=dense_hierarchy, best=best_diagonal, exact="orthogonal", tasks=(TASK,)),
    "gaussian_kron": Case(family=GaussianKron(), dense=dense_kron, best=exact_posterior, exact="any"),
    "gaussian_lowrank": Case(
        family=GaussianLowRank(rank=8), dense=dense_lowrank, best=exact_posterior, exact="any"
    ),
    "monteclora": Case(
        family=MonteClora(),
        dense=dense_drawn,
        best=best_diagonal,
        exact="orthogonal",
        charged=dense_centres,
        beside=beside_drawn,
    ),
    "examples.row_gaussian": Case(family=RowGaussian(), dense=dense_rows, best=best_rows, exact="orthogonal"),
    "point": Case(family=Point(scale=0.3), dense=dense_point, best=best_point, exact="none"),
}


def with_scale(case: Case, sd_head: float) -> Family[Any, Any]:
    """Return the case's family with another prior deviation of class rows, where it has one."""
    options = {"sd_head": sd_head} if hasattr(case.family, "sd_head") else {}
    kind: Any = type(case.family)
    kept = {f: getattr(case.family, f) for f in kind.__dataclass_fields__ if f != "name"}
    made: Family[Any, Any] = kind(**(kept | options))
    return made


def names(sequence: Sequence[Slot]) -> list[str]:
    """Return the names of slots."""
    return [slot.name for slot in sequence]
