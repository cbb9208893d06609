"""MonteCLoRA: Monte Carlo enhanced low-rank adaptation (arXiv 2411.04358), made a belief that is carried on.

    A = mu + sum_k pi_k X_k,   columns of X_k ~ N(0, Sigma),   Sigma ~ W(V, nu),   pi ~ Dirichlet(alpha)

with V = diag exp(2 log_root) over the rank directions; the paper's epsilon is a part of V. Learned by
gradients: the law of mu, V and alpha. Against the paper and its code:

- The mean has a law. In the paper A's mean is a point that no divergence holds back, so there is nothing to
  hand on. Here mu ~ N(M, diag sd^2) and its KL to yesterday's is charged: the term that was missing.
- Scale is charged once. Given (Sigma, pi) the draws X_k have the same law under q and p and cost nothing:
  KL = KL_mu + KL_Sigma + KL_pi. The paper adds KL(N(0, Sigma) || N(0, I)) to the Wishart term, which charges
  V twice, and |pi|^2 beside the Dirichlet term.
- mu has a deviation of its own. Charged in E[Sigma^-1], a move would be measured by the posterior's scale,
  not by the prior's, and stop about a deviation short of the data; and a Wishart of nu degrees charges like
  nu columns, so that the spread of d columns would narrow d/nu times too fast for the evidence. Here that
  speed does no harm: the draws give way, and evidence accumulates in sd.
- nu = r + spare, spare >= 2, is part of the state. The paper has nu = r, where E[Sigma^-1] diverges.
- One Gaussian draw replaces the K: given (Sigma, pi) their weighted sum is N(0, |pi|^2 Sigma).
- Dirichlet and Wishart variates are exact (`posterior.variates`): what is drawn is what is charged.
- B, class rows and prefixes are plain Gaussian. B is Gaussian and no point, because a prior over A means
  something only beside the B it was learned with; class rows come and go, and one covariance over them
  would tie the spread of a new class to that of the old.

KL is exact over (mu, Sigma, pi). The mean is exact where a mean field is: on orthogonal designs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from posterior import gaussian
from posterior.divergence import dirichlet_kl, wishart_kl
from posterior.family import Draw, Facts, Slot, Tensors, part_of, state_of
from posterior.gaussian import Diagonal, Scales
from posterior.variates import dirichlet, wishart_factor

_DRAWN = ("down", "adapter_down")
_LEAST_SPARE = 2.0
# Names of noise, beside the slot's own for mu; no slot is called so.
_GAUSS, _BARTLETT, _WEIGHTS = "{}~draw", "{}~wishart", "{}~dirichlet"


@dataclass(frozen=True)
class Drawn:
    """Law of the means of all slots; of the draws' covariance and weights where a slot has draws.

    mean, log_sd (*shape) · log_root (r,), nu (): Sigma ~ W(diag exp(2 log_root), nu) · log_alpha (K,)
    """

    mean: Tensors
    log_sd: Tensors
    log_root: Tensors
    nu: Tensors
    log_alpha: Tensors


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MonteClora:
    """The family; scales are prior standard deviations of one weight, `sd_draws` that of sum pi_k X_k.

    `components` is K, `dirichlet` the base's alpha for each weight, `spare` what nu has beyond the rank.
    """

    sd_down: float = 0.02
    sd_up: float = 0.02
    sd_head: float = 0.1
    sd_prefix: float = 0.1
    sd_draws: float = 0.01
    components: int = 4
    dirichlet: float = 1.0
    spare: float = 2.0
    name: str = "monteclora"

    def __post_init__(self) -> None:
        """Refuse a law without the moments that are needed."""
        if self.spare < _LEAST_SPARE:
            msg = f"spare must be at least 2, for nu = r + spare; got {self.spare}"
            raise ValueError(msg)

    @property
    def curved(self) -> bool:
        """Spread is learned by gradients."""
        return False

    def restore(self, tensors: Tensors) -> Drawn:
        """Return the state that was flattened."""
        return state_of(Drawn, tensors)

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> Drawn:
        """Return p_0: A around random directions, B and head around 0, draws of deviation `sd_draws`."""
        scales = Scales(down=self.sd_down, up=self.sd_up, prefix=self.sd_prefix, head=self.sd_head)
        drawn = [s for s in slots if s.role in _DRAWN]
        norm = (self.dirichlet + 1) / (self.components * self.dirichlet + 1)  # E |pi|^2
        nu = {s.name: s.shape[0] + self.spare for s in drawn}
        root = {k: math.log(self.sd_draws / math.sqrt(n * norm)) for k, n in nu.items()}
        return Drawn(
            mean={s.name: gaussian.centre(s, seed=seed, centres=centres) for s in slots},
            log_sd={s.name: torch.full(s.shape, math.log(scales.of(s))) for s in slots},
            log_root={s.name: torch.full((s.shape[0],), root[s.name]) for s in drawn},
            nu={k: torch.tensor(n) for k, n in nu.items()},
            log_alpha={s.name: torch.full((self.components,), math.log(self.dirichlet)) for s in drawn},
        )

    def grow(self, state: Drawn, base: Drawn) -> Drawn:
        """Return the state with new class rows at the base prior."""
        return _with_means(state, gaussian.grow(_means(state), _means(base)))

    def forget(self, state: Drawn, base: Drawn, *, beta: float) -> Drawn:
        """Return the power prior, exact: all three factors mix their natural parameters."""
        if beta == 1.0:
            return state
        if beta == 0.0:
            return base
        means = gaussian.forget(_means(state), _means(base), beta=beta)

        def mixed(ours: Tensor, theirs: Tensor) -> Tensor:
            return (beta * ours.double() + (1 - beta) * theirs.double()).to(ours.dtype)

        def root(ours: Tensor, theirs: Tensor) -> Tensor:  # natural: V^-1
            return -0.5 * mixed(torch.exp(-2 * ours.double()), torch.exp(-2 * theirs.double())).log().to(
                ours.dtype
            )

        return Drawn(
            mean=means.mean,
            log_sd=means.log_sd,
            log_root={k: root(v, base.log_root[k]) for k, v in state.log_root.items()},
            nu={k: mixed(v, base.nu[k]) for k, v in state.nu.items()},
            log_alpha={k: mixed(v.exp(), base.log_alpha[k].exp()).log() for k, v in state.log_alpha.items()},
        )

    def open(self, state: Drawn, tasks: Sequence[str]) -> Drawn:
        """Return the state: all tasks share one set of weights."""
        del tasks
        return state

    def origin(self, prior: Drawn) -> Tensors:
        """Return zero coordinates: one for each mean and deviation, root and weight."""
        return {
            **gaussian.origin(_means(prior), moving=[]),
            **{f"log_root/{k}": torch.zeros_like(v) for k, v in prior.log_root.items()},
            **{f"log_alpha/{k}": torch.zeros_like(v) for k, v in prior.log_alpha.items()},
        }

    def place(self, prior: Drawn, coordinates: Tensors, *, shape: Drawn) -> Drawn:
        """Return the state at mean m + sd*u, all logs + u."""
        del shape
        means = gaussian.place(_means(prior), coordinates, point_scale=1.0)
        return Drawn(
            mean=means.mean,
            log_sd=means.log_sd,
            log_root={k: v + coordinates[f"log_root/{k}"] for k, v in prior.log_root.items()},
            nu=prior.nu,
            log_alpha={k: v + coordinates[f"log_alpha/{k}"] for k, v in prior.log_alpha.items()},
        )

    def noise(self, state: Drawn) -> Mapping[str, tuple[int, ...]]:
        """Return one normal per weight; for slots with draws another, and those behind Sigma and pi."""
        shapes = dict(gaussian.noise(_means(state)))
        for k in sorted(state.log_root):
            shapes[_GAUSS.format(k)] = tuple(state.mean[k].shape)
            shapes[_BARTLETT.format(k)] = (state.log_root[k].numel(),) * 2
            shapes[_WEIGHTS.format(k)] = tuple(state.log_alpha[k].shape)
        return shapes

    def sample(self, state: Drawn, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return one set of weights per sequence, with a covariance and weights of its own."""
        del tasks
        weights = gaussian.sample(_means(state), noise)
        return {k: w + _weighted(state, noise, k) if k in state.log_root else w for k, w in weights.items()}

    def mean(self, state: Drawn, tasks: Sequence[str]) -> Draw:
        """Return the mean weights: the paper's predictions, without any doubt."""
        del tasks
        return gaussian.mean(_means(state))

    def kl(self, state: Drawn, prior: Drawn) -> Tensor:
        """Return KL over means, covariances and weights; the draws given these cost nothing."""
        total = gaussian.kl(_means(state), _means(prior))
        for k, root in state.log_root.items():
            total = total + wishart_kl(root, state.nu[k], prior.log_root[k], prior.nu[k])
            total = total + dirichlet_kl(_alpha(state, k), _alpha(prior, k))
        return total

    def marginal(self, state: Drawn, slots: Collection[str]) -> Drawn:
        """Return the part of the belief."""
        return part_of(state, slots)

    def absorb(self, prior: Drawn, state: Drawn, rows: Tensors) -> tuple[Drawn, float]:
        """Return the state."""
        del prior, rows
        return state, 0.0

    def settle(self, state: Drawn, prior: Drawn, posterior: Drawn, facts: Facts) -> Drawn:
        """Return where the window ended."""
        del state, prior, facts
        return posterior


def _means(state: Drawn) -> Diagonal:
    return Diagonal(mean=state.mean, log_sd=state.log_sd, point={}, flags={})


def _with_means(state: Drawn, means: Diagonal) -> Drawn:
    return Drawn(means.mean, means.log_sd, state.log_root, state.nu, state.log_alpha)


def _alpha(state: Drawn, slot: str) -> Tensor:
    return torch.exp(state.log_alpha[slot].double())


def _weighted(state: Drawn, noise: Tensors, slot: str) -> Tensor:
    """Return sum_k pi_k X_k, (n, r, d): |pi| V^1/2 L z with L L' ~ W(I, nu), for one (Sigma, pi) a row."""
    z = noise[_GAUSS.format(slot)]
    factor = wishart_factor(noise[_BARTLETT.format(slot)], state.nu[slot])
    length = torch.linalg.vector_norm(dirichlet(noise[_WEIGHTS.format(slot)], _alpha(state, slot)), dim=-1)
    root = length[:, None, None] * torch.exp(state.log_root[slot].double())[:, None] * factor
    total: Tensor = root.to(z.dtype) @ z
    return total
