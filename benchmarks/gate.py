"""How often the gate promotes who is no better, and how soon it finds who is.

Two thousand simulated streams of paired losses for each case. The gate is `better` of trainers/gates.py with
its default bounds, looked at after every label and after every window of fifty; beside it a paired t-test at
the same level, as it is often used: looked at after every window, and once at the end, as it is meant.

A promotion is false if it comes at a moment at which the policy has not been better on average so far.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.intervals import share
from benchmarks.papers.chart import Line, Panel, panels
from benchmarks.result import RESULTS, Result, Row, arguments, progress, publish
from trainers.bounds import Bounds
from trainers.wager import FRACTIONS

STREAMS: Final = 2_000
EVENTS: Final = 4_000
WINDOW: Final = 50
AT_ONCE: Final = 250  # streams in memory
SPREAD: Final = 0.8  # nats: deviation of a difference of losses
BETTER: Final = (0.05, 0.1, 0.2, 0.3)  # nats an event
BOUNDS: Final = Bounds()
_NEED: Final = -math.log(BOUNDS.alpha)
_NEED_LATELY: Final = -math.log(BOUNDS.rollback_alpha)
_SHOWN: Final = (100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000)

Stream = tuple[Tensor, Tensor]
"""Gains in nats, and the mean of each given what came before; both (streams, events)."""


def even(generator: torch.Generator, streams: int) -> Stream:
    """Two policies that are equally good, with heavy losses, many beyond the clip."""
    ours, theirs = _normals(generator, 2, streams, EVENTS).mul(1.5).exp().clamp(max=BOUNDS.clip).unbind()
    return theirs - ours, torch.zeros(streams, EVENTS, dtype=torch.float64)


def rare_disaster(generator: torch.Generator, streams: int) -> Stream:
    """Nearly always a little better, and in one event of fifty as much worse as can be: even on average."""
    lost = torch.rand(streams, EVENTS, generator=generator, dtype=torch.float64) < 1 / 50
    return torch.where(lost, -4.9, 0.1), torch.zeros(streams, EVENTS, dtype=torch.float64)


def turns(generator: torch.Generator, streams: int) -> Stream:
    """Good weeks and bad weeks: each stretch of four windows has a mean of its own, even on average."""
    stretches = _normals(generator, streams, EVENTS // (4 * WINDOW)) * 0.2
    level = stretches.repeat_interleave(4 * WINDOW, dim=1)
    return level + SPREAD * _normals(generator, streams, EVENTS), level


def better_by(nats: float) -> Callable[[torch.Generator, int], Stream]:
    """Return a policy that is so much better, always."""

    def stream(generator: torch.Generator, streams: int) -> Stream:
        noise = SPREAD * _normals(generator, streams, EVENTS)
        return nats + noise, torch.full((streams, EVENTS), nats, dtype=torch.float64)

    return stream


NULLS: Final[Mapping[str, Callable[[torch.Generator, int], Stream]]] = {
    "even": even,
    "rare disaster": rare_disaster,
    "good weeks and bad": turns,
}


def passes(gains: Tensor) -> Tensor:
    """Return whether `better` passes after each event of each stream (streams, events)."""
    x = gains.clamp(-BOUNDS.clip, BOUNDS.clip) / BOUNDS.clip
    ahead, behind, lately = (_mixed(x), _mixed(-x), _lately(-x))
    n = torch.arange(1, x.shape[1] + 1)
    return (n >= BOUNDS.min_labels) & (ahead >= _NEED) & (behind < _NEED) & (lately < _NEED_LATELY)


def t_passes(gains: Tensor) -> Tensor:
    """Return whether a one-sided paired t-test at the same level says "better" after each event."""
    n = torch.arange(1, gains.shape[1] + 1, dtype=torch.float64)
    mean = gains.cumsum(1) / n
    square = (gains.square().cumsum(1) / n - mean.square()).clamp(min=1e-12) * n / (n - 1).clamp(min=1)
    return (n >= BOUNDS.min_labels) & (mean / (square / n).sqrt() >= _quantile(1 - BOUNDS.alpha))


@dataclass(frozen=True, slots=True)
class Found:
    """How many streams were promoted by each of `_SHOWN` labels, and how many falsely at any time."""

    promoted: Mapping[str, Sequence[int]]
    false: Mapping[str, int]
    streams: int


def examine(case: Callable[[torch.Generator, int], Stream], seed: int, streams: int) -> Found:
    """Play the streams of a case."""
    generator = torch.Generator().manual_seed(seed)
    promoted: dict[str, list[int]] = {}
    false: dict[str, int] = {}
    for first in range(0, streams, AT_ONCE):
        gains, level = case(generator, min(AT_ONCE, streams - first))
        unearned = level.cumsum(1) <= 0
        for name, said in _ways(gains):
            ever = said.cumsum(1) > 0
            now = [int(ever[:, n - 1].sum()) for n in _SHOWN]
            promoted[name] = [a + b for a, b in zip(promoted.get(name, [0] * len(now)), now, strict=True)]
            false[name] = false.get(name, 0) + int((said & unearned).any(1).sum())
    return Found(promoted, false, streams)


def _ways(gains: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each way of looking, and whether it says "better" when it looks."""
    after_windows = torch.arange(1, EVENTS + 1) % WINDOW == 0
    last = torch.arange(1, EVENTS + 1) == EVENTS
    gate, t = passes(gains), t_passes(gains)
    yield "gate, every label", gate
    yield "gate, every window", gate & after_windows
    yield "t-test, every window", t & after_windows
    yield "t-test, once", t & last


def _mixed(x: Tensor) -> Tensor:
    """Return log mean_f W_t(f): what `better_by` says."""
    logs = [torch.log1p(f * x).cumsum(1) for f in FRACTIONS]
    return _log_mean(logs)


def _lately(x: Tensor) -> Tensor:
    """Return the log of bets begun anew before every event: what `worse_lately` says."""
    n = torch.arange(1, x.shape[1] + 1, dtype=torch.float64)
    begun = []
    for f in FRACTIONS:
        logs = torch.log1p(f * x).cumsum(1)
        before = torch.cat([torch.zeros_like(logs[:, :1]), logs[:, :-1]], dim=1)
        begun.append(logs + (-before - (n * (n + 1)).log()).logcumsumexp(1))
    return torch.logaddexp(_log_mean(begun), -(n + 1).log())


def _log_mean(logs: Sequence[Tensor]) -> Tensor:
    total = logs[0]
    for one in logs[1:]:
        total = torch.logaddexp(total, one)
    return total - math.log(len(logs))


def _normals(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _quantile(q: float) -> float:
    """Return the normal quantile; at a hundred labels and more, Student's is within a hundredth of it."""
    return float(torch.special.ndtri(torch.tensor(q, dtype=torch.float64)))


def rows(nulls: Mapping[str, Found], powers: Mapping[float, Found]) -> Iterator[Row]:
    """Yield what is claimed, and what was seen."""
    for name, found in nulls.items():
        for way in ("gate, every label", "gate, every window"):
            yield Row(
                what=f"false promotions, {name}: {way}",
                bound="at most",
                target=BOUNDS.alpha,
                measured=share(found.false[way], found.streams),
                unit="share of streams",
                runs=found.streams,
            )
    for nats, labels in ((0.3, 200), (0.1, 1_500)):
        found = powers[nats]
        hits = found.promoted["gate, every window"][_SHOWN.index(labels)]
        yield Row(
            what=f"found within {labels:,} labels: {nats} nats better",
            bound="at least",
            target=0.8,
            measured=share(hits, found.streams),
            unit="share of streams",
            runs=found.streams,
        )


def curves(found: Found) -> dict[str, Any]:
    """Return the share of streams that were promoted by so many labels, and falsely at any time."""
    return {
        "labels": list(_SHOWN),
        "promoted": {way: [n / found.streams for n in by] for way, by in found.promoted.items()},
        "false": {way: n / found.streams for way, n in found.false.items()},
    }


def figure(nulls: Mapping[str, Found], powers: Mapping[float, Found]) -> str:
    """Draw false promotions under "even" and the power of the gate over labels."""
    labels = [f"{n:,}" for n in _SHOWN]
    null = curves(nulls["even"])["promoted"]
    ways = ("gate, every window", "t-test, every window")
    level = Line(f"stated level {BOUNDS.alpha}", [BOUNDS.alpha] * len(labels))
    return panels(
        Panel("promoted though no better, by labels", labels, [*(Line(w, null[w]) for w in ways), level]),
        Panel(
            "promoted, by labels and nats better",
            labels,
            [Line(f"{nats} nats", curves(f)["promoted"]["gate, every window"]) for nats, f in powers.items()],
        ),
    )


def main() -> None:
    asked = arguments(__doc__)
    torch.set_num_threads(1)
    streams, seeds = (100 if asked.quick else STREAMS), itertools.count(1)
    nulls, powers = {}, {}
    for name, case in NULLS.items():
        progress(f"no better: {name}")
        nulls[name] = examine(case, next(seeds), streams)
    for nats in BETTER:
        progress(f"better by {nats} nats")
        powers[nats] = examine(better_by(nats), next(seeds), streams)
    how = {
        "streams": streams,
        "labels": EVENTS,
        "window": WINDOW,
        "deviation_nats": SPREAD,
        "alpha": BOUNDS.alpha,
        "rollback_alpha": BOUNDS.rollback_alpha,
        "min_labels": BOUNDS.min_labels,
        "clip": BOUNDS.clip,
        "curves": {name: curves(f) for name, f in nulls.items()}
        | {f"{nats} nats better": curves(f) for nats, f in powers.items()},
    }
    publish(Result(name="gate", rows=tuple(rows(nulls, powers)), how=how), asked)
    if not asked.quick:
        (RESULTS / "gate.svg").write_text(figure(nulls, powers), encoding="utf-8")


if __name__ == "__main__":
    main()
