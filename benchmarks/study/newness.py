"""Who should say that a text is of a class nobody has seen? Four pools of experts on streams of the study.

    .venv/bin/python -m benchmarks.study.newness [--streams mails vader ...]

The panel's heads alone on the frozen encoder, no adapter learned: what is said of new classes depends on
nothing else. Each text is asked about before its window is learned; what it cost is -ln p(new) or
-ln (1 - p(new)). The pools, each reweighted window by window as the panel is:

    constants      .001, .01, .1
    densities      and odds of densities, up to near certainty
    even_odds      and odds of densities, up to even odds
    panel          and the share of new classes so far: what the panel does
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.study.kept import HOME, shelf
from benchmarks.study.measures import auroc
from benchmarks.study.page import RESULTS, record
from benchmarks.study.streams import Example, Stream, streams
from posterior import novelty, panel
from posterior.panel import Panel
from posterior.pool import even, pooled, reweighted
from posterior.sight import Glance, glance
from priorflow.learning import model_spec
from trainers.activations import Activations
from trainers.model import AdaptedModel
from trainers.panelled import HEARD
from trainers.update import spread_over

STREAMS: Final = ("mails", "vader", "news", "r8", "recurring")
RESULT: Final = RESULTS / "newness.json"
FIRST: Final = len(novelty.CONSTANTS)
Rule = Callable[[Tensor, Glance], Tensor]  # counts, a glance -> (J, n, 2)


@dataclass(frozen=True, slots=True)
class Asked:
    """A text of known or new class, and what a rule gave to a new one."""

    new: bool
    given: float

    @property
    def cost(self) -> float:
        """Nats that the truth cost."""
        return -float(torch.tensor(self.given if self.new else 1 - self.given).log())


def _ours(counts: Tensor, seen: Glance) -> Tensor:
    return novelty.experts(counts, seen.fresh, seen.last, width=seen.width)


def _without_rate(counts: Tensor, seen: Glance) -> Tensor:
    said = _ours(counts, seen)
    return torch.cat([said[:FIRST], said[FIRST + 1 :]])


def _unbounded(counts: Tensor, seen: Glance) -> Tensor:
    """Return constants, and the panel's odds without the bound at even ones."""
    odds = torch.stack(novelty.by_densities(seen.fresh, seen.last, width=seen.width))
    said = novelty.both(odds.clamp(-novelty.MOST, novelty.MOST))
    return torch.cat([_ours(counts, seen)[:FIRST], said])


RULES: Final[Mapping[str, Rule]] = {
    "constants": lambda counts, seen: _ours(counts, seen)[:FIRST],
    "densities": _unbounded,
    "even_odds": _without_rate,
    "panel": _ours,
}


def walked(stream: Stream, activations: Activations, rule: Rule) -> Iterator[Asked]:
    """Yield every text that was foretold, window by window."""
    state: Panel | None = None
    labels: tuple[str, ...] = ()
    weights, counts = torch.empty(0), novelty.nothing()
    everyone = [e for window in stream.windows for e in window]
    for w, window in enumerate(stream.windows):
        if state is not None:
            seen = _glance(state, activations, arrived := [e for e in everyone if e.arrived == w])
            said = rule(counts, seen)
            weights = weights if len(weights) else even(len(said))
            given = pooled(said, weights)[:, 1].exp().tolist()
            yield from (Asked(e.label not in labels, g) for e, g in zip(arrived, given, strict=True))
            chosen = [window[i] for i in spread_over(len(window), HEARD)]
            fresh = torch.tensor([e.label not in labels for e in chosen])
            told = rule(counts, _glance(state, activations, chosen))
            truth = told.gather(2, fresh.long().view(1, -1, 1).expand(len(told), -1, 1)).squeeze(2)
            weights = reweighted(weights, truth, worth=panel.NEWNESS)
            counts = novelty.counted(counts, fresh)
        labels = tuple(dict.fromkeys([*labels, *(e.label for e in window)]))
        sight = activations.sight([e.text for e in window])
        state = panel.founded(sight) if state is None else state
        rows = torch.tensor([labels.index(e.label) for e in window])
        state = panel.learned(state, sight, rows, classes=len(labels))


def _glance(state: Panel, activations: Activations, texts: Sequence[Example]) -> Glance:
    return glance(panel.believed(state), activations.sight([e.text for e in texts]))


def row(stream: str, name: str, asked: Sequence[Asked]) -> dict[str, Any]:
    """Return what a rule cost on a stream."""
    parts = {"all": asked, "known": [a for a in asked if not a.new], "new": [a for a in asked if a.new]}
    costs = {k: round(statistics.fmean(a.cost for a in v), 4) if v else None for k, v in parts.items()}
    area = auroc([(a.given, a.new) for a in asked])
    return {
        "stream": stream,
        "rule": name,
        "events": {k: len(v) for k, v in parts.items()},
        "nats": costs,
        "auroc": None if area is None else round(area, 4),
    }


def main() -> None:
    """Ask every rule on every stream; write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", nargs="+", default=list(STREAMS))
    asked, settings = parser.parse_args(), shelf(quick=False).settings
    torch.set_num_threads(1)
    activations = Activations(AdaptedModel(model_spec(settings)), limit_bytes=2 << 30)
    rows = []
    for name in asked.streams:
        stream = streams(HOME)[name]()
        rows += [row(name, rule, list(walked(stream, activations, say))) for rule, say in RULES.items()]
        print(json.dumps(rows[-len(RULES) :], indent=1), flush=True)
    how = "heads alone on the frozen encoder; nats an event that what was said of new classes cost"
    record(RESULT, name="newness", how=how, rows=rows)


if __name__ == "__main__":
    main()
