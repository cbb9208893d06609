"""Who should be heard about known classes, and for how long? Panels on streams of the study.

    .venv/bin/python -m benchmarks.study.hearing [--streams mails vader ...]

The panel's heads alone on the frozen encoder, no adapter learned and rows that know nothing. Texts of known
classes are asked about before their window is learned; what is said of new classes is left out. Each panel is
reweighted window by window as the panel is, but for what it takes off those who divide after a window that
lacks known classes:

    flat            pieces under a flat prior: before its own evidence a class holds each for as likely
    generative      no softmax regression
    eight           weights by the last eight windows
    panel           what the panel does: pieces under what all classes share, weights by the last window
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.study.kept import HOME, shelf
from benchmarks.study.page import RESULTS, record
from benchmarks.study.streams import Example, Stream, streams
from posterior import panel
from posterior.calibration import ece
from posterior.dictionary import Dictionary
from posterior.experts import EXPERTS, divides
from posterior.panel import Panel
from posterior.pool import even, pooled, reweighted
from posterior.sight import glance
from priorflow.learning import model_spec
from trainers.activations import Activations
from trainers.model import AdaptedModel
from trainers.panelled import HEARD
from trainers.update import spread_over

STREAMS: Final = ("mails", "vader", "r8", "recurring")
RESULT: Final = RESULTS / "hearing.json"
# Rows know nothing here, so experts that go by them alone are one expert too often.
GENERATIVE: Final = torch.tensor([not divides(e) for e in EXPERTS])
ALL: Final = torch.tensor([not e.rows for e in EXPERTS])
FLAT: Final = 0.03  # texts that every piece is taken to have stood in; of .01, .03, .1, .3 and 1 the best


@dataclass(frozen=True, slots=True)
class Way:
    """Which experts are asked, for how many events weights count at most, and under which prior of pieces."""

    asked: Tensor
    memory: float = panel.WORTH
    flat: bool = False


WAYS: Final[Mapping[str, Way]] = {
    "flat": Way(ALL, flat=True),
    "generative": Way(GENERATIVE),
    "eight": Way(ALL, memory=8.0 * HEARD),
    "panel": Way(ALL),
}


@dataclass(frozen=True, slots=True)
class Window:
    """What every expert said, (H, n, K), of texts that arrived and of members, and the truth (n,)."""

    said: Tensor
    truth: Tensor
    said_of_members: Tensor
    truth_of_members: Tensor


def windows(stream: Stream, activations: Activations, *, flat: bool) -> Iterator[Window]:
    """Yield what there was to hear, window by window."""
    state: Panel | None = None
    labels: tuple[str, ...] = ()
    everyone = [e for window in stream.windows for e in window]
    for w, window in enumerate(stream.windows):
        if state is not None:
            asked = [e for e in everyone if e.arrived == w and e.label in labels]
            members = [window[i] for i in spread_over(len(window), HEARD)]
            members = [e for e in members if e.label in labels]
            ask = _asking(state, activations, labels, flat=flat)
            yield Window(*ask(asked), *ask(members))
        labels = tuple(dict.fromkeys([*labels, *(e.label for e in window)]))
        sight = activations.sight([e.text for e in window])
        state = panel.founded(sight) if state is None else state
        rows = torch.tensor([labels.index(e.label) for e in window])
        state = panel.learned(state, sight, rows, classes=len(labels))


def _asking(
    state: Panel, activations: Activations, labels: Sequence[str], *, flat: bool
) -> Callable[[Sequence[Example]], tuple[Tensor, Tensor]]:
    heads = panel.believed(state)
    if flat:
        urns = state.words["counts"].double() + FLAT
        heads = replace(heads, pieces=Dictionary(urns.log(), urns.sum(dim=1)))

    def ask(texts: Sequence[Example]) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(texts), len(labels))
        seen = glance(heads, activations.sight([e.text for e in texts]))
        return panel.by_expert(rows, seen), torch.tensor([labels.index(e.label) for e in texts])

    return ask


def foretold(met: Sequence[Window], way: Way) -> Iterator[tuple[float, float, bool]]:
    """Yield of every text what the truth got, the greatest probability, and whether that was the truth's."""
    weights, judged = even(int(way.asked.sum())), 0
    for one in met:
        p = pooled(one.said[way.asked], weights).exp()
        sure, guess = p.max(dim=1)
        given = p.gather(1, one.truth.unsqueeze(1)).squeeze(1)
        yield from zip(given.tolist(), sure.tolist(), (guess == one.truth).tolist(), strict=True)
        column = one.truth_of_members.view(1, -1, 1).expand(len(weights), -1, 1)
        truth = one.said_of_members[way.asked].gather(2, column).squeeze(2)
        weights = reweighted(weights, truth, worth=min(panel.WORTH + judged, way.memory))
        judged += truth.shape[1]


def row(stream: str, name: str, told: Sequence[tuple[float, float, bool]]) -> dict[str, Any]:
    """Return what a panel was worth on a stream."""
    nats = -torch.tensor([given for given, _, _ in told], dtype=torch.float64).log()
    return {
        "stream": stream,
        "panel": name,
        "events": len(told),
        "accuracy": round(sum(right for _, _, right in told) / len(told), 4),
        "nats": round(float(nats.mean()), 4),
        "ece": round(
            ece(torch.tensor([sure for _, sure, _ in told]), torch.tensor([right for _, _, right in told])), 4
        ),
    }


def main() -> None:
    """Ask every panel on every stream; write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", nargs="+", default=list(STREAMS))
    asked, settings = parser.parse_args(), shelf(quick=False).settings
    torch.set_num_threads(1)
    activations = Activations(AdaptedModel(model_spec(settings)), limit_bytes=2 << 30)
    rows = []
    for name in asked.streams:
        stream = streams(HOME)[name]()
        met = {flat: list(windows(stream, activations, flat=flat)) for flat in (False, True)}
        rows += [row(name, what, list(foretold(met[way.flat], way))) for what, way in WAYS.items()]
        print(json.dumps(rows[-len(WAYS) :], indent=1), flush=True)
    how = "heads alone on the frozen encoder; texts of known classes, foretold before their window"
    record(RESULT, name="hearing", how=how, rows=rows)


if __name__ == "__main__":
    main()
