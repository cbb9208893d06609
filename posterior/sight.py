"""What a panel's heads make of texts: what they look at, the heads, what they say of it.

All of it is of the *frozen* model, so no evidence ever goes stale. What the last view alone looks like is
part of what was seen of all views: its columns, and their scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from posterior import dictionary, generative, regression
from posterior.dictionary import Dictionary
from posterior.folding import first_rows
from posterior.generative import Belief
from posterior.moments import Moments
from posterior.regression import Factored, Regression

# What is believed of features before any was seen: unit mean square, about half of it within a class and
# as much between classes; as many degrees of freedom again as there are features.
VARIANCE: Final = 0.5
CLASS_WORTH: Final = 1.0  # events that where classes lie is worth to a class that is like no other
AMONG_WORTH: Final = 5.0  # the same to one among those known; chosen on the foretold mails, vader and r8


class OtherPanel(ValueError):
    """A snapshot's panel is of a release with other heads or experts; its chain cannot go on with it."""


OTHER: Final = (
    "this snapshot's panel is of a release with other heads or experts: derive the chain again with "
    "`priorflow replay --into NEW`, or start a new one"
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the frozen model makes of n texts: views (n, views, features), different pieces of V of each."""

    views: Tensor
    pieces: Sequence[Tensor]
    vocabulary: int

    def of(self, chosen: Sequence[int]) -> Sight:
        """Return some of the texts."""
        return Sight(self.views[list(chosen)], [self.pieces[i] for i in chosen], self.vocabulary)


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads, ready to be asked: of all views, of the last alone, of pieces; and the one that divides.

    `seen` (K,) are the rows of the label map, C in all, that have evidence: those of the known classes. Going
    on from an older belief leaves classes in the map of which there is none. `own` names the class of each:
    by the first row that it has in the map.
    """

    views: Belief
    last: Belief
    pieces: Dictionary
    divided: Factored
    seen: Tensor
    own: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Glance:
    """What the heads make of n texts: log densities under the rows with evidence, (n, K) each.

    `views` of `d` features, `last` of `width`; `narrow` and `wide` are log-probabilities that softmax
    regression gives these rows; `fresh` (n,) is what the last view is like in a class
    unseen; `seen` and `own` as in `Heads`.
    """

    views: Tensor
    pieces: Tensor
    last: Tensor
    narrow: Tensor
    wide: Tensor
    fresh: Tensor
    seen: Tensor
    own: tuple[int, ...]
    d: int
    width: int


def heads(
    evidence: Moments, centre: Tensor, pieces: Dictionary, divided: Regression, labels: Sequence[str] = ()
) -> Heads:
    """Return the heads' posteriors; without a label map each row is a class of its own.

    `evidence` of all views; `centre` (views, features of one) is where classes are before they are seen. A
    known class of few texts is looked for where the known ones lie; whether a text is of a class unseen is
    asked of the last view, where that may lie anywhere.
    """
    seen, last = evidence.count.nonzero().squeeze(1), of_last(evidence, centre.shape[-1])
    first = first_rows(labels) or range(len(evidence.count))
    return Heads(
        views=_believed(evidence, amid(evidence, centre.flatten()), worth=AMONG_WORTH),
        last=_believed(last, centre[-1], worth=CLASS_WORTH),
        pieces=pieces,
        divided=regression.factored(regression.among(divided, seen), last),
        seen=seen,
        own=tuple(first[row] for row in seen.tolist()),
    )


def glance(ready: Heads, sight: Sight) -> Glance:
    """Return what the heads make of texts; OtherPanel, if they are of other views than these."""
    if sight.views[0].numel() != len(ready.views.root):
        raise OtherPanel(OTHER)
    flat, last, seen = sight.views.flatten(1), sight.views[:, -1], ready.seen
    narrow, wide = regression.log_probabilities(ready.divided, last)
    return Glance(
        views=generative.log_densities(ready.views, flat)[:, seen],
        pieces=dictionary.log_densities(ready.pieces, sight.pieces)[:, seen],
        last=generative.log_densities(ready.last, last)[:, seen],
        narrow=narrow,
        wide=wide,
        fresh=generative.log_fresh(ready.last, last),
        seen=seen,
        own=ready.own,
        d=len(ready.views.root),
        width=last.shape[1],
    )


def of_last(evidence: Moments, width: int) -> Moments:
    """Return what was seen of the last view, (..., width)."""
    mean, scatter = evidence.mean[:, -width:], evidence.scatter[-width:, -width:]
    return replace(evidence, mean=mean, scatter=scatter)


def amid(evidence: Moments, centre: Tensor) -> Tensor:
    """Return the mean of the means of classes with evidence, `centre` (d,) being one more of them."""
    seen = evidence.count > 0
    return (centre + evidence.mean[seen].sum(dim=0)) / (1 + seen.sum())


def _believed(evidence: Moments, centre: Tensor, *, worth: float) -> Belief:
    variance = torch.full_like(centre, VARIANCE)
    base = generative.base(centre, variance, worth=worth, freedom=2.0 + len(centre))
    return generative.believe(base, evidence)
