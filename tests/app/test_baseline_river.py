"""The bag of words plays by the chain's rules, and learns."""

from __future__ import annotations

import random

from priorflow.baseline_river import bag_of_words
from priorflow.scores import Prediction, predictions, prequential, spread
from stream.plan import Member
from stream.record import Position

WORDS = {
    "spam": ("free", "winner", "money", "offer"),
    "ilug": ("kernel", "linux", "driver", "boot"),
    "rpm": ("package", "spec", "build", "yum"),
}


def _member(number: int, label: str, *, arrived: int, rng: random.Random) -> Member:
    return Member(
        event_id=f"mail-{number}",
        text=" ".join(rng.choices(WORDS[label], k=6)),
        label=label,
        task=None,
        event=Position("events", number % 3, number),
        event_sha256="0" * 64,
        event_ms=number,
        label_at=Position("labels", 0, number),
        label_sha256="1" * 64,
        accepted_ms=number,
        arrived=arrived,
    )


def _stream(*, late: int = 0) -> dict[int, list[Member]]:
    """Three windows of 40; rpm first appears in window 2; `late` members of each arrived one before."""
    rng = random.Random(7)
    windows = {}
    for w in range(1, 4):
        classes = ("spam", "ilug") if w == 1 else tuple(WORDS)
        windows[w] = [
            _member(40 * w + i, classes[i % len(classes)], arrived=max(0, w - 1 - (i < late)), rng=rng)
            for i in range(40)
        ]
    return windows


def _score(told: tuple[Prediction, ...], window: int) -> float:
    return prequential(told, pi_new=0.01).windows[window].accuracy


def test_a_separable_stream_is_learned() -> None:
    made = bag_of_words(_stream())
    assert _score(made.predictions, 3) == 1.0
    assert made.matrix[-1] == (1.0, 1.0, 1.0)
    assert [len(row) for row in made.matrix] == [1, 2, 3]


def test_nothing_is_foretold_before_a_class_is_known() -> None:
    made = bag_of_words(_stream())
    assert {p.window for p in made.predictions if p.forecast is None} == {1}
    assert prequential(made.predictions, pi_new=0.01).left_out == (1,)


def test_a_class_is_unknown_until_a_window_with_it_was_learned() -> None:
    made = bag_of_words(_stream())
    in_second = [p.forecast for p in made.predictions if p.window == 2]
    assert all(f is not None and set(f) == {"spam", "ilug"} for f in in_second)
    assert _score(made.predictions, 2) < 1.0


def test_an_event_is_predicted_with_what_was_learned_when_it_arrived() -> None:
    made = bag_of_words(_stream(late=5))
    second = [p for p in made.predictions if p.window == 2]
    assert [p.forecast is None for p in second] == [True] * 5 + [False] * 35
    third = [p for p in made.predictions if p.window == 3]
    assert all("rpm" not in (p.forecast or {}) for p in third[:5])
    assert all("rpm" in (p.forecast or {}) for p in third[5:])


def test_labels_of_a_window_do_not_reach_its_own_forecasts() -> None:
    stream = _stream()
    swapped = {
        **stream,
        3: [_relabelled(m) for m in stream[3]],
    }
    ours, theirs = bag_of_words(stream).predictions, bag_of_words(swapped).predictions
    assert [p.forecast for p in ours] == [p.forecast for p in theirs]


def _relabelled(member: Member) -> Member:
    label = {"spam": "ilug", "ilug": "spam"}.get(member.label, member.label)
    return Member(
        event_id=member.event_id,
        text=member.text,
        label=label,
        task=None,
        event=member.event,
        event_sha256=member.event_sha256,
        event_ms=member.event_ms,
        label_at=member.label_at,
        label_sha256=member.label_sha256,
        accepted_ms=member.accepted_ms,
        arrived=member.arrived,
    )


def test_a_quarantined_window_leaves_a_hole_in_the_numbers_only() -> None:
    stream = _stream(late=5)
    holed = {1: stream[1], 3: stream[3]}
    told = bag_of_words(holed).predictions
    assert [p.window for p in told] == [1] * 40 + [3] * 40
    assert all(p.forecast is not None for p in told if p.window == 3)


def test_the_same_stream_gives_the_same_baseline() -> None:
    assert bag_of_words(_stream(late=5)) == bag_of_words(_stream(late=5))


def test_members_carry_their_forecasts_in_window_order() -> None:
    told = predictions({2: _stream()[2], 1: _stream()[1]})
    assert [p.window for p in told] == [1] * 40 + [2] * 40


def test_a_sample_is_spread_over_the_window() -> None:
    window = _stream()[1]
    assert [m.event.offset for m in spread(window, 4)] == [40, 50, 60, 70]
    assert spread(window, 64) is window
