"""Nobody learns what is held out, nobody foretells with what is learned later, and splits keep their word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.study.learners import NaiveBayes, Reservoir
from benchmarks.study.streams import Example, Stream, cut, shuffled, unlearned, windowed
from benchmarks.study.walk import together, walk
from stream.plan import Forecast

STREAM = windowed(
    "toy",
    [[(f"{w}-{i}", "ab"[i % 2] if w else "a") for i in range(6)] for w in range(3)],
    [[(f"held {w}-{i}", "ab"[i % 2]) for i in range(4)] for w in range(3)],
)


class Witness:
    """Remembers what it was told, and says so."""

    def __init__(self) -> None:
        self.learned: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.recalled: list[str] = []

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        self.asked += [(text, len(self.learned)) for text in texts]
        return [{"a": 1.0} if self.learned else None for _ in texts]

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        self.recalled += texts
        return [{"a": 1.0}] * len(texts)

    def learn(self, window: Sequence[Example]) -> None:
        self.learned += [e.text for e in window]

    def carried(self) -> int:
        return 5


def _nothing() -> None:
    return None


def _clock() -> float:
    return 0.0


def test_texts_are_foretold_before_they_are_learned_and_held_ones_never_are() -> None:
    witness = Witness()
    trace = walk(witness, STREAM, _clock, _nothing)
    assert witness.asked == [(e.text, 6 * w) for w, window in enumerate(STREAM.windows) for e in window]
    assert witness.learned == [e.text for window in STREAM.windows for e in window]
    assert not set(witness.recalled) & set(witness.learned)
    assert [t.forecast is None for t in trace.told] == [True] * 6 + [False] * 12
    assert trace.matrix == ((0.5,), (0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_text_that_arrives_early_is_foretold_early_and_learned_late() -> None:
    early = Example("early", "a", 1)
    stream = Stream("s", (*STREAM.windows[:2], (*STREAM.windows[2], early)), STREAM.held)
    witness = Witness()
    trace = walk(witness, stream, _clock, _nothing)
    assert ("early", 6) in witness.asked
    assert witness.learned[-1] == "early"
    assert (trace.told[-1].window, trace.told[-1].arrived) == (2, 1)


def test_who_learns_everything_at_once_foretells_nothing_and_is_asked_about_every_window() -> None:
    witness = Witness()
    trace = together(witness, STREAM, _clock, _nothing)
    assert len(witness.learned) == 18
    assert trace.told == ()
    assert trace.matrix == ((0.5, 0.5, 0.5),)
    assert [t.window for t in trace.final] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_shuffled_stream_has_the_same_texts_on_the_same_side() -> None:
    found = shuffled(STREAM)
    for before, after in ((STREAM.windows, found.windows), (STREAM.held, found.held)):
        assert sorted(e.text for w in before for e in w) == sorted(e.text for w in after for e in w)
        assert [len(w) for w in before] == [len(w) for w in after]
        assert [w for w, window in enumerate(after) for _ in window] == [e.arrived for w in after for e in w]
    assert [e.text for e in found.windows[0]] != [e.text for e in STREAM.windows[0]]


def test_what_somebody_learns_word_for_word_is_not_held_out() -> None:
    twice = Example("0-0", "a", 1)
    stream = Stream("s", STREAM.windows, (STREAM.held[0], (twice, *STREAM.held[1]), STREAM.held[2]))
    assert unlearned(stream) == Stream("s", STREAM.windows, STREAM.held)


def test_a_digest_changes_with_any_text_and_a_cut_keeps_windows() -> None:
    small = cut(STREAM, learn=3, held=2)
    assert [len(w) for w in small.windows] == [3, 3, 3]
    assert [len(w) for w in small.held] == [2, 2, 2]
    assert small.digest != STREAM.digest


def test_a_reservoir_is_a_uniform_sample() -> None:
    counts = [0] * 10
    for seed in range(600):
        held = Reservoir(3, seed)
        held.offer([Example(str(i), "a", 0) for i in range(10)])
        assert len(held.held) == 3
        for example in held.held:
            counts[int(example.text)] += 1
    assert all(130 < count < 230 for count in counts), counts  # 180 each, sd 11


def test_a_reservoir_of_nothing_holds_nothing() -> None:
    held = Reservoir(0, 1)
    held.offer([Example("text", "a", 0)])
    assert held.held == []


def test_a_bag_of_words_knows_no_class_at_first_and_sums_to_one_later() -> None:
    bag = NaiveBayes()
    assert bag.foretell(["good"]) == [None]
    bag.learn([Example("good good", "a", 0), Example("bad", "b", 0)])
    (said,) = bag.foretell(["good"])
    assert said is not None
    assert sum(said.values()) == pytest.approx(1)
    assert said["a"] > said["b"]
