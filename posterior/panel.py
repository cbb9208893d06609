"""A panel beside a family's class rows: they, and a generative head, each at several temperatures.

Class rows learn what divides the classes of a window and are pushed off those it does not hold; a
generative head on features that never move (the frozen encoder's) keeps every class exactly, and knows
less. Two opinion pools (`posterior.pool`), whose weights earlier windows' forecasts have earned, make one
forecast of both:

    p(new | x) = sum_j w_j pi_j(x)                 a constant, or the odds of a class unseen at x
    p(k | x)   = (1 - p(new | x)) sum_h w_h p_h(k | x)       rows^(1/T), or p(x | k)^(1/T)

so that ratios between known classes do not depend on how likely a new one is. A generative head of d
features counts as if they were independent, which they are not: its temperatures are in units of d, and
its classes are as likely as each other, for which queue is busy changes faster than what belongs in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from posterior import generative, moments
from posterior.family import Tensors
from posterior.generative import Belief
from posterior.moments import Moments
from posterior.pool import even, pooled, reweighted
from posterior.predict import entropy

NEW: Final = ""  # the name of "a class nobody has seen" in a forecast; no label is empty
UNSEEN: Final = -1  # the truth of an event whose class was not known when it was foretold

ROWS: Final = (1.0, 1.5, 2.0, 3.0)  # temperatures of the class rows
DENSITIES: Final = (192.0, 96.0, 64.0, 38.4)  # features that count as one; the temperature is d over it
CONSTANTS: Final = (0.001, 0.01, 0.1)  # pi_new, whatever the features say
ODDS: Final = tuple((pi, features) for pi in (0.01, 0.1) for features in (128.0, 64.0, 38.4))
WORTH: Final = 20.0  # events that the pools' weights of before count for
# What is believed of features before any was seen: unit mean square, about half of it within a class and
# as much between classes; as many degrees of freedom again as there are features.
VARIANCE: Final = 0.5
CLASS_WORTH: Final = 1.0
_SURE: Final = 1e-4  # no expert's pi_new is nearer to 0 or 1


@dataclass(frozen=True)
class Panel:
    """State that a chain hands on, float64.

    generative: `Moments` by field, and `centre` (d,), where classes are before they are seen · pool:
    `classes` (H,), `novelty` (J,), weights of the experts.
    """

    generative: Tensors
    pool: Tensors


@dataclass(frozen=True, slots=True)
class Glance:
    """What the generative head makes of n texts of `d` features.

    log densities under the known classes (n, K), and under a fresh one (n,).
    """

    densities: Tensor
    fresh: Tensor
    d: int


FIELDS: Final = ("generative", "pool")


def restore(tensors: Tensors) -> tuple[Panel | None, dict[str, Tensor]]:
    """Split a snapshot's tensors into the panel, if there is one, and those of the family."""
    parts: dict[str, dict[str, Tensor]] = {field: {} for field in FIELDS}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        field, _, slot = name.partition("/")
        if field in parts:
            parts[field][slot] = tensor
        else:
            rest[name] = tensor
    return (Panel(**parts) if parts["generative"] else None), rest


def founded(features: Tensor) -> Panel:
    """Return the panel before it has learned: it knows where features lie, (n, d), and no class."""
    centre = features.double().mean(dim=0)
    nothing = moments.nothing(len(centre))
    pool = {"classes": even(len(ROWS) + len(DENSITIES)), "novelty": even(len(CONSTANTS) + len(ODDS))}
    return Panel(generative=_named(nothing) | {"centre": centre}, pool=pool)


def believed(panel: Panel) -> Belief:
    """Return the generative head's posterior."""
    centre = panel.generative["centre"]
    base = generative.base(
        centre,
        torch.full_like(centre, VARIANCE),
        worth=CLASS_WORTH,
        freedom=2.0 + len(centre),
    )
    return generative.believe(base, _moments(panel))


def glance(belief: Belief, features: Tensor) -> Glance:
    """Return what the generative head makes of features (n, d)."""
    densities, fresh = generative.log_densities(belief, features), generative.log_fresh(belief, features)
    return Glance(densities, fresh, len(belief.root))


def foretold(panel: Panel, rows: Tensor, features: Tensor) -> Tensor:
    """Return log p of the known classes and of a new one, (n, K + 1), the new one last.

    `rows` (n, K) is what the class rows say, log-probabilities; `features` (n, d) are the frozen ones.
    """
    return told(panel, rows, glance(believed(panel), features))


def told(panel: Panel, rows: Tensor, seen: Glance) -> Tensor:
    """Return `foretold` of features that were glanced at; a glance at one text goes with many rows."""
    known = pooled(_classes(rows, seen), panel.pool["classes"])
    new = pooled(_novelty(seen), panel.pool["novelty"]).expand(len(known), -1)
    return torch.cat([new[:, :1] + known, new[:, 1:]], dim=1)


def dispute(panel: Panel, rows: Tensor, seen: Glance) -> Tensor:
    """Return how unsure the experts are one by one, (n,), nats: their mean entropy of the K + 1 classes.

    A hypothesis is an expert on the known classes with one on new ones; their mixture is `foretold`, whose
    entropy is above this by what the hypotheses disagree about:

        sum_j w_j H(pi_j) + (1 - sum_j w_j pi_j) sum_h w_h H(p_h)
    """
    known, new = _classes(rows, seen), _novelty(seen)
    of_known, of_new = (panel.pool[name].unsqueeze(1) for name in ("classes", "novelty"))
    old = (of_new * new[..., 0].exp()).sum(dim=0)
    return (of_new * entropy(new)).sum(dim=0) + old * (of_known * entropy(known)).sum(dim=0)


def heard(panel: Panel, rows: Tensor, features: Tensor, truth: Tensor) -> Panel:
    """Return the panel with its pools' weights after these events, before it learns their features.

    `truth` (n,) names classes known to the panel, or is `UNSEEN`.
    """
    belief, old = believed(panel), truth != UNSEEN
    said = {
        "classes": _of(_classes(rows[old], glance(belief, features[old])), truth[old]),
        "novelty": _of(_novelty(glance(belief, features)), (~old).long()),
    }
    weights = {name: reweighted(panel.pool[name], said[name], worth=WORTH) for name in said}
    return replace(panel, pool=weights)


def learned(panel: Panel, features: Tensor, labels: Tensor, *, classes: int) -> Panel:
    """Return the panel with the evidence of features (n, d) under labels (n,) counted in.

    It has a row for each of `classes`; one without evidence is where the base has it.
    """
    after = moments.combine(_moments(panel), moments.moments(features, labels))
    after = moments.grow(after, max(classes, len(after.count)))
    return replace(panel, generative=_named(after) | {"centre": panel.generative["centre"]})


def _classes(rows: Tensor, seen: Glance) -> Tensor:
    """Return log p_h(k | x) of every expert on the known classes, (H, n, K)."""
    densities = seen.densities.expand(len(rows), -1)
    said = [rows.double() / t for t in ROWS] + [densities * (share / seen.d) for share in DENSITIES]
    return torch.log_softmax(torch.stack(said), dim=-1)


def _novelty(seen: Glance) -> Tensor:
    """Return log [1 - pi_j(x), pi_j(x)] of every expert, (J, n, 2)."""
    count = len(seen.fresh)
    said = [torch.full((count,), math.log(pi / (1 - pi)), dtype=torch.float64) for pi in CONSTANTS]
    for pi, share in ODDS:
        t = share / seen.d
        rival = torch.logsumexp(seen.densities * t, dim=-1) - math.log(seen.densities.shape[1])
        said.append(math.log(pi / (1 - pi)) + seen.fresh * t - rival)
    bound = math.log((1 - _SURE) / _SURE)
    odds = torch.stack(said).clamp(-bound, bound)
    return torch.nn.functional.logsigmoid(torch.stack([-odds, odds], dim=-1))


def _of(log_p: Tensor, truth: Tensor) -> Tensor:
    """Return what every expert said of the truth, (H, n)."""
    return log_p.gather(2, truth.view(1, -1, 1).expand(len(log_p), -1, 1)).squeeze(2)


def _named(evidence: Moments) -> dict[str, Tensor]:
    return {name: getattr(evidence, name) for name in Moments.__dataclass_fields__}


def _moments(panel: Panel) -> Moments:
    held: Mapping[str, Tensor] = panel.generative
    return Moments(**{name: held[name] for name in Moments.__dataclass_fields__})
