"""A panel beside a family's class rows: they, and three heads on what no step changes, alone and in company.

Class rows learn what divides the classes of a window and are pushed off those it does not hold. Heads that
generate what the *frozen* model makes of a text keep every class exactly, whatever comes in between: a
Gaussian of each class over the model's views of the text (`posterior.generative`), and frequencies of each
class over its pieces (`posterior.dictionary`). Where classes overlap, one that divides knows more: on the
last view, under a narrow prior and a wide one, `posterior.regression`. Opinion pools (`posterior.pool`) with
weights that earlier windows' forecasts have earned make one forecast of all; who is asked is in
`posterior.experts`.

    p(new | x) = sum_j w_j pi_j(x)                 by constants, rates and odds (`posterior.novelty`)
    p(k | x)   = (1 - p(new | x)) sum_h w_h p_h(k | x)
    p_h(k | x) ~ rows_k(x)^r p(views of x | k)^(f/d) p(pieces of x | k)^s narrow_k(x)^a wide_k(x)^b

so that ratios between known classes do not depend on how likely a new one is. A class that was merged has
several rows and is each expert's sum over them (`posterior.folding`). Generative heads hold classes for as
likely as each other: which queue is busy changes faster than what belongs in it, and rows know the share of
late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from posterior import dictionary, moments, novelty, regression
from posterior.experts import EXPERTS, divides
from posterior.family import Tensors
from posterior.folding import first_rows, folded, once
from posterior.moments import Moments
from posterior.pool import even, pooled, reweighted
from posterior.predict import entropy
from posterior.regression import Regression
from posterior.sight import OTHER, Glance, Heads, OtherPanel, Sight, glance, heads, of_last

NEW: Final = ""  # the name of "a class nobody has seen" in a forecast; no label is empty
UNSEEN: Final = -1  # the truth of an event whose class was not known when it was foretold


WORTH: Final = 20.0  # events that weights of before count for
NEWNESS: Final = 5.0  # the same of who says that a class is new, whatever was heard
LEFT: Final = 0.5  # of the say of those that divide, after a window of other classes alone
LIKENESS: Final = (192.0, 0.05)  # of views and pieces: which row of a merged class a text resembles
_EXPONENTS: Final = torch.tensor(
    [[e.rows, e.views, e.pieces, e.narrow, e.wide] for e in EXPERTS], dtype=torch.float64
)
_DIVIDES: Final = torch.tensor([divides(e) for e in EXPERTS])


@dataclass(frozen=True)
class Panel:
    """State that a chain hands on.

    generative: `Moments` by field, float64, the scatter as its lower triangle row by row, and `centre`
    (views, features of one), where classes are before they are seen · words: `counts` (K, V), int32 ·
    regression: `Regression` by field, float64, on the last view; its second moments are in the former ·
    pool: `classes` (H,), `novelty` (J,), weights of the experts, and `rate` (2,), how many of the events that
    they were judged by were of a class unseen, and how many there were; float64.
    """

    generative: Tensors
    words: Tensors
    regression: Tensors
    pool: Tensors


FIELDS: Final = ("generative", "words", "regression", "pool")


def restore(tensors: Tensors) -> tuple[Panel | None, dict[str, Tensor]]:
    """Split a snapshot's tensors into the panel, if there is one, and those of the family; or OtherPanel."""
    parts: dict[str, dict[str, Tensor]] = {field: {} for field in FIELDS}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        field, _, slot = name.partition("/")
        if field in parts:
            parts[field][slot] = tensor
        else:
            rest[name] = tensor
    if parts["generative"] and _sizes(parts) != ((len(EXPERTS),), (novelty.EXPERTS,)):
        raise OtherPanel(OTHER)
    return (Panel(**parts) if parts["generative"] else None), rest


def _sizes(parts: Mapping[str, Tensors]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return how many experts there are of classes and of novelty; None where a head is missing."""
    pool = parts["pool"]
    whole = parts["words"] and parts["regression"]
    return (tuple(pool["classes"].shape), tuple(pool["novelty"].shape)) if whole else None


def founded(sight: Sight) -> Panel:
    """Return the panel before it has learned: it knows where views lie, and no class."""
    centre = sight.views.double().mean(dim=0)
    pool = {
        "classes": even(len(EXPERTS)),
        "novelty": even(novelty.EXPERTS),
        "rate": novelty.nothing(),
    }
    return Panel(
        generative=_named(moments.nothing(centre.numel())) | {"centre": centre},
        words={"counts": dictionary.nothing(sight.vocabulary)},
        regression=dict(vars(regression.nothing(centre.shape[-1]))),
        pool=pool,
    )


def believed(panel: Panel, labels: Sequence[str] = ()) -> Heads:
    """Return the heads' posteriors; without a label map each row is a class of its own."""
    return heads(
        _moments(panel),
        panel.generative["centre"],
        dictionary.ready(panel.words["counts"]),
        Regression(**panel.regression),
        labels,
    )


def known(panel: Panel, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the known classes of a label map; one without evidence costs what a new one does."""
    return once([labels[row] for row in _seen(panel).tolist()])


def _seen(panel: Panel) -> Tensor:
    return panel.generative["count"].nonzero().squeeze(1)


def told(panel: Panel, rows: Tensor, seen: Glance) -> Tensor:
    """Return log p of the known classes and of a new one, (n, K + 1), the new one last.

    `rows` (n, C) is what the class rows say of the whole label map, log-probabilities; a glance at one text
    goes with many rows.
    """
    known = pooled(by_expert(rows, seen), panel.pool["classes"])
    new = pooled(_novelty(panel, seen), panel.pool["novelty"]).expand(len(known), -1)
    return torch.cat([new[:, :1] + known, new[:, 1:]], dim=1)


def dispute(panel: Panel, rows: Tensor, seen: Glance) -> Tensor:
    """Return how unsure the experts are one by one, (n,), nats: their mean entropy of the K + 1 classes.

    A hypothesis is an expert on the known classes with one on new ones; their mixture is what is told, and
    its entropy is above this by what the hypotheses disagree about:

        sum_j w_j H(pi_j) + (1 - sum_j w_j pi_j) sum_h w_h H(p_h)
    """
    known, new = by_expert(rows, seen), _novelty(panel, seen)
    of_known, of_new = (panel.pool[name].unsqueeze(1) for name in ("classes", "novelty"))
    old = (of_new * new[..., 0].exp()).sum(dim=0)
    return (of_new * entropy(new)).sum(dim=0) + old * (of_known * entropy(known)).sum(dim=0)


def heard(
    panel: Panel,
    rows: Tensor,
    sight: Sight,
    truth: Tensor,
    labels: Sequence[str] = (),
    *,
    ready: Heads | None = None,
) -> Panel:
    """Return the panel with its pools' weights after these events, before it learns their texts.

    `truth` (n,) are rows of the label map, a class's first, or `UNSEEN`; a class without evidence is as good
    as unseen. `ready` is what is `believed` of it, if that is known already.
    """
    seen = glance(believed(panel, labels) if ready is None else ready, sight)
    which = truth.unsqueeze(1) == torch.tensor(list(dict.fromkeys(seen.own)))
    old = which.any(dim=1)
    of_known = _of(by_expert(rows, seen)[:, old], which[old].long().argmax(dim=1))
    of_new = _of(_novelty(panel, seen), (~old).long())
    pool = {
        "classes": reweighted(panel.pool["classes"], of_known, worth=WORTH),
        "novelty": reweighted(panel.pool["novelty"], of_new, worth=NEWNESS),
        "rate": novelty.counted(panel.pool["rate"], ~old),
    }
    return replace(panel, pool=pool)


def doubted(panel: Panel, truth: Tensor, labels: Sequence[str] = ()) -> Panel:
    """Return the panel that believes those who divide less, for what a window of `truth` (n,) lacks.

        w_h ~ w_h LEFT^m for h that divides, m the share of all events so far whose class it does not hold

    Rows and regression are pushed off such classes, and no event of the window can tell. Those who generate
    keep every class exactly. Without evidence yet nothing can be lost; `truth` as in `heard`.
    """
    count = panel.generative["count"]
    held, own = set(truth.tolist()), first_rows(labels) or range(len(count))
    lacks = torch.tensor([own[row] not in held for row in range(len(count))], dtype=torch.bool)
    missing = float(count[lacks].sum() / count.sum().clamp(min=1.0))
    if not missing:
        return panel
    say = torch.where(_DIVIDES, panel.pool["classes"] * LEFT**missing, panel.pool["classes"])
    return replace(panel, pool=dict(panel.pool) | {"classes": say / say.sum()})


def placed(ready: Heads, sight: Sight, truth: Tensor) -> Tensor:
    """Return the rows (n,) in which texts count whose classes have `truth` (n,) for their first row.

    Of the rows of a merged class it is the one that views and pieces hold for likeliest, before they learn
    the text: counted in one of them whatever they say, what divides two rows would become the spread of all.
    """
    if len(set(ready.own)) == len(ready.own):
        return truth
    seen, own = glance(ready, sight), torch.tensor(ready.own)
    of_views, of_pieces = LIKENESS
    density = seen.views / seen.d * of_views + seen.pieces * of_pieces
    theirs = truth.unsqueeze(1) == own
    likeliest = density.masked_fill(~theirs, -torch.inf).argmax(dim=1)
    return torch.where(theirs.any(dim=1), seen.seen[likeliest], truth)


def learned(panel: Panel, sight: Sight, labels: Tensor, *, classes: int) -> Panel:
    """Return the panel with the evidence of texts counted in, `labels` (n,) being their rows.

    It has a row for each of `classes`; one without evidence is where the base has it.
    """
    flat, before = sight.views.flatten(1), _moments(panel)
    after = moments.combine(before, moments.moments(flat, labels))
    after = moments.grow(after, max(classes, len(after.count)))
    counts = dictionary.counted(panel.words["counts"], sight.pieces, labels, classes=len(after.count))
    return Panel(
        generative=_named(after) | {"centre": panel.generative["centre"]},
        words={"counts": counts},
        regression=dict(vars(_divided(panel, before, after, sight.views[:, -1], labels))),
        pool=panel.pool,
    )


def _divided(panel: Panel, before: Moments, after: Moments, features: Tensor, labels: Tensor) -> Regression:
    """Return softmax regression after a window, among the classes that then have evidence."""
    state = regression.grow(Regression(**panel.regression), len(after.count))
    rows = after.count.nonzero().squeeze(1)
    prior = regression.factored(regression.among(state, rows), of_last(before, features.shape[1]))
    return regression.merged(
        state, regression.learned(prior, features, torch.searchsorted(rows, labels)), rows
    )


def by_expert(rows: Tensor, seen: Glance) -> Tensor:
    """Return log p_h(k | x) of every expert on the known classes, (H, n, K)."""
    rows = rows[:, seen.seen].double()
    beside = seen.views / seen.d, seen.pieces, seen.narrow, seen.wide
    factors = torch.stack([rows, *(part.expand(len(rows), -1) for part in beside)])
    said = torch.einsum("hf,fnk->hnk", _EXPONENTS, factors)
    return folded(torch.log_softmax(said, dim=-1), seen.own)


def _novelty(panel: Panel, seen: Glance) -> Tensor:
    """Return log [1 - pi_j(x), pi_j(x)] of every expert, (J, n, 2)."""
    return novelty.experts(panel.pool["rate"], seen.fresh, seen.last, width=seen.width)


def _of(log_p: Tensor, truth: Tensor) -> Tensor:
    """Return what every expert said of the truth, (H, n)."""
    return log_p.gather(2, truth.view(1, -1, 1).expand(len(log_p), -1, 1)).squeeze(2)


def _named(evidence: Moments) -> dict[str, Tensor]:
    """Return moments by name, half of the scatter left out: it is symmetric."""
    rows, columns = torch.tril_indices(*evidence.scatter.shape)
    scatter = evidence.scatter[rows, columns]
    return {"count": evidence.count, "mean": evidence.mean, "scatter": scatter}


def _moments(panel: Panel) -> Moments:
    held: Mapping[str, Tensor] = panel.generative
    d = held["centre"].numel()
    lower = torch.ones(d, d, dtype=torch.bool).tril_()
    scatter = held["scatter"].new_zeros(d, d)
    for half in (scatter, scatter.T):
        half.masked_scatter_(lower, held["scatter"])
    return Moments(held["count"], held["mean"], scatter)
