"""What each generative head of the panel sees: known classes and new ones, by views and by pieces.

    .venv/bin/python benchmarks/heads.py [--quick] [--json]

No adapter, no class row, no pool: the heads alone, on what the frozen encoder makes of the demo's mails. Each
of the demo's windows is foretold by the heads after the windows before it, then counted in. Known classes: is
the likeliest one the truth? New ones: how well does the density of a class unseen, over the mean of the known
ones', tell an event of a class that no window has shown (AUROC)? Three core-minutes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import Estimate
from benchmarks.mails_stream import code_sha256, demo_settings, demo_windows
from benchmarks.result import ROOT, Result, Row, arguments, progress, publish
from benchmarks.study.measures import auroc
from benchmarks.study.paired import difference
from posterior import dictionary, generative, panel
from posterior.panel import Panel
from posterior.sight import Sight
from priorflow.learning import model_spec
from priorflow.scores import spread
from stream.plan import Member
from trainers.activations import Activations
from trainers.model import AdaptedModel

NAME: Final = "heads"
QUICK: Final = 40  # mails of each window
FEATURES, PIECES = 64.0, 0.05  # how much of a density counts where new classes are told, as in the panel
RESAMPLES: Final = 400
ALL, FIRST, LAST, WORDS = "all views", "all but the last view", "the last view", "pieces"


@dataclass(frozen=True, slots=True)
class Asked:
    """An event: of a known class or not; by head, whether it was right and the log odds of a new class."""

    known: bool
    right: Mapping[str, bool]
    odds: Mapping[str, float]


def asked(windows: Sequence[Sequence[Member]], seen: Activations) -> list[Asked]:
    """Foretell every window but the first by the heads after those before it."""
    whole = below = None
    labels: tuple[str, ...] = ()
    told: list[Asked] = []
    for number, members in enumerate(windows, start=1):
        sight = seen.sight([m.text for m in members])
        early = Sight(sight.views[:, :-1], sight.pieces, sight.vocabulary)
        if whole is not None and below is not None:
            told += _said(_densities(whole, below, sight, early), labels, members)
        labels = tuple(dict.fromkeys([*labels, *(m.label for m in members)]))
        truth = torch.tensor([labels.index(m.label) for m in members])
        whole = panel.learned(whole or panel.founded(sight), sight, truth, classes=len(labels))
        below = panel.learned(below or panel.founded(early), early, truth, classes=len(labels))
        progress(f"window {number}")
    return told


def _densities(whole: Panel, below: Panel, sight: Sight, early: Sight) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, by head, log densities of the known classes (n, K) and of one unseen (n,), tempered."""
    heads, first = panel.believed(whole), panel.believed(below)
    parts = ((ALL, heads.views, sight.views), (FIRST, first.views, early.views))
    out = {}
    for name, belief, views in (*parts, (LAST, heads.last, sight.views[:, -1:])):
        x = views.flatten(1)
        share = FEATURES / x.shape[1]
        out[name] = generative.log_densities(belief, x) * share, generative.log_fresh(belief, x) * share
    empty = dictionary.ready(torch.zeros(1, sight.vocabulary, dtype=torch.int32))
    known, fresh = (dictionary.log_densities(d, sight.pieces) * PIECES for d in (heads.pieces, empty))
    return out | {WORDS: (known, fresh.squeeze(1))}


def _said(
    densities: Mapping[str, tuple[Tensor, Tensor]], labels: Sequence[str], members: Sequence[Member]
) -> Iterator[Asked]:
    guesses = {name: known.argmax(dim=1).tolist() for name, (known, _) in densities.items()}
    odds = {
        name: (fresh - torch.logsumexp(known, dim=1) + math.log(len(labels))).tolist()
        for name, (known, fresh) in densities.items()
    }
    for i, member in enumerate(members):
        right = {name: labels[guess[i]] == member.label for name, guess in guesses.items()}
        yield Asked(member.label in labels, right, {name: one[i] for name, one in odds.items()})


def more_right(told: Sequence[Asked], ours: str, theirs: str) -> Estimate:
    """Return by how much one head is more often right than another, on events of known classes."""
    sides = ([float(one.right[name]) for one in told if one.known] for name in (ours, theirs))
    found = difference(*sides)
    return Estimate(found.value, found.low, found.high)


def better_told(told: Sequence[Asked], ours: str, theirs: str) -> Estimate:
    """Return by how much one head tells new classes better than another, over events drawn again."""
    noise = torch.Generator().manual_seed(0)
    gaps = []
    for _ in range(RESAMPLES):
        rows = torch.randint(len(told), (len(told),), generator=noise).tolist()
        drawn = [told[row] for row in rows]
        gaps.append(area(drawn, ours) - area(drawn, theirs))
    low, high = torch.quantile(torch.tensor(gaps), torch.tensor([0.025, 0.975])).tolist()
    return Estimate(area(told, ours) - area(told, theirs), low, high)


def area(told: Sequence[Asked], head: str) -> float:
    """Return P(an event of a new class has higher odds than one of a known class)."""
    found = auroc([(one.odds[head], not one.known) for one in told])
    assert found is not None, "windows after the first show new classes and known ones"
    return found


def result(told: Sequence[Asked]) -> Result:
    """Return the claims of docs/methods.md, and what each head came to."""
    known = [one for one in told if one.known]
    rights = ((ALL, LAST), (FIRST, LAST), (WORDS, LAST))
    areas = ((LAST, ALL), (LAST, WORDS))
    rows = [
        *(_row(f"known classes: accuracy by {a} minus by {b}", more_right(told, a, b)) for a, b in rights),
        *(_row(f"new classes: AUROC by {a} minus by {b}", better_told(told, a, b)) for a, b in areas),
    ]
    heads = (ALL, FIRST, LAST, WORDS)
    how = {
        "events": {"of known classes": len(known), "of new ones": len(told) - len(known)},
        "accuracy": {h: round(sum(one.right[h] for one in known) / len(known), 4) for h in heads},
        "auroc": {h: round(area(told, h), 4) for h in heads},
        "tempered": f"views as if {FEATURES:g} features counted, pieces at {PIECES:g}",
        "intervals": "95 %, bootstrap over events as if independent; mails of a thread are not",
        "code": code_sha256()[:12],
    }
    return Result(name=NAME, rows=rows, how=how)


def _row(what: str, found: Estimate) -> Row:
    return Row(what=what, bound="at least", target=0.0, measured=found, unit="share", runs=1)


def main() -> None:
    """Ask the heads about the demo's mails."""
    said = arguments(__doc__)
    torch.set_num_threads(1)
    settings = demo_settings(ROOT / ".priorflow" / "bench-heads")
    windows: list[Sequence[Member]] = [members for _, members in sorted(demo_windows(settings).items())]
    if said.quick:
        windows = [spread(members, QUICK) for members in windows]
    model = AdaptedModel(model_spec(settings))
    publish(result(asked(windows, Activations(model, limit_bytes=1 << 20))), said)


if __name__ == "__main__":
    main()
