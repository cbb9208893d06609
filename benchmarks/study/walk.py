"""A learner's way through a stream: foretell what arrives, learn the window, show what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from benchmarks.study.streams import Example, Stream
from priorflow.scores import best_guess
from stream.plan import Forecast

Clock = Callable[[], float]


class Learner(Protocol):
    """A method under way; a forecast is None while no class is known."""

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Say what is to be expected of texts that have just arrived."""
        ...

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Say what is known of texts that nobody learns."""
        ...

    def learn(self, window: Sequence[Example]) -> None:
        """Learn a window, once."""
        ...

    def carried(self) -> int:
        """Return the bytes handed on to the next window."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a text of `window` when `arrived` windows had been learned, and the truth."""

    window: int
    arrived: int
    label: str
    forecast: Forecast | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All that a run has shown; measures are functions of it.

    `told`: texts before they were learned · `matrix[i][j]`: accuracy on window j's held-out texts after
    window i · `final`: what is said of all held-out texts at the end · CPU seconds a window · bytes carried.
    """

    told: tuple[Told, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    final: tuple[Told, ...]
    foretell_cpu: tuple[float, ...]
    learn_cpu: tuple[float, ...]
    carried: int


def walk(learner: Learner, stream: Stream, clock: Clock, tick: Callable[[], None]) -> Trace:
    """Lead a learner through the windows; what it recalls is on nobody's account."""
    everyone = [(w, e) for w, window in enumerate(stream.windows) for e in window]
    said: dict[int, Forecast | None] = {}
    matrix, final, spent = [], list[Told](), []
    for w, window in enumerate(stream.windows):
        arrived = [i for i, (_, e) in enumerate(everyone) if e.arrived == w]
        begun = clock()
        said |= zip(arrived, learner.foretell([everyone[i][1].text for i in arrived]), strict=True)
        foretold = clock()
        learner.learn(window)
        spent.append((foretold - begun, clock() - foretold))
        final = recalled(learner, stream, w + 1)
        matrix.append(accuracies(final, w + 1))
        tick()
    return Trace(
        told=tuple(Told(w, e.arrived, e.label, said[i]) for i, (w, e) in enumerate(everyone)),
        matrix=tuple(matrix),
        final=tuple(final),
        foretell_cpu=tuple(a for a, _ in spent),
        learn_cpu=tuple(b for _, b in spent),
        carried=learner.carried(),
    )


def together(learner: Learner, stream: Stream, clock: Clock, tick: Callable[[], None]) -> Trace:
    """Let a learner have all windows at once, as retraining after the last would: it foretells nothing."""
    at_once = tuple(replace(e, arrived=0) for e in chain(*stream.windows))
    everything = replace(stream, windows=(at_once,), held=(tuple(chain(*stream.held)),))
    trace = walk(learner, everything, clock, tick)
    whose = chain.from_iterable([w] * len(window) for w, window in enumerate(stream.held))
    final = tuple(replace(one, window=w) for one, w in zip(trace.final, whose, strict=True))
    return replace(trace, told=(), matrix=(accuracies(final, len(stream.held)),), final=final)


def recalled(learner: Learner, stream: Stream, windows: int) -> list[Told]:
    """Return what is said of the held-out texts of the first windows."""
    shown = [(w, e) for w in range(windows) for e in stream.held[w]]
    said = learner.recall([e.text for _, e in shown])
    return [Told(w, windows, e.label, f) for (w, e), f in zip(shown, said, strict=True)]


def accuracies(shown: Sequence[Told], windows: int) -> tuple[float | None, ...]:
    """Return the share of best guesses that are right, by window; None where there is no text."""
    rights: list[list[bool]] = [[] for _ in range(windows)]
    for one in shown:
        rights[one.window].append(is_right(one))
    return tuple(sum(r) / len(r) if r else None for r in rights)


def is_right(one: Told) -> bool:
    """Return whether the likeliest known class is the truth; to say nothing is wrong."""
    return bool(one.forecast) and best_guess(one.forecast or {}) == one.label
