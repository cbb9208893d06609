"""Scales and ticks of drawings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from priorflow.report_curves import beta_text
from priorflow.report_heat import SHOWN_CLASSES, shown_classes
from priorflow.report_svg import Scale, doublings, every, number, steps
from tests.app.story_example import example

numbers = st.floats(0, 1e6)


@given(numbers, numbers)
def test_ticks_are_few_ordered_and_within_bounds(low: float, span: float) -> None:
    assume(span > 1e-3 * max(1.0, low))
    ticks = steps(low, low + span)
    assert 1 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    slack = 1e-6 * span
    assert low - slack <= ticks[0]
    assert ticks[-1] <= low + span + slack


def test_ticks_are_round() -> None:
    assert steps(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert steps(0, 550, 4) == [0, 200, 400]
    assert steps(3, 3) == [3]
    assert doublings(0.25, 8) == [0.25, 0.5, 1, 2, 4, 8]


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.booleans())
def test_a_scale_keeps_order_and_ends(a: float, b: float, log: bool) -> None:
    scale = Scale(0.01, 100, 200, 10, log=log)
    assert scale(0.01) == pytest.approx(200)
    assert scale(100) == pytest.approx(10)
    if a < b:
        assert scale(a) >= scale(b)


def test_a_scale_without_extent_uses_its_middle() -> None:
    assert Scale(5, 5, 0, 10)(5) == 5


@given(st.integers(0, 1000), st.integers(1, 30))
def test_labels_are_never_more_than_there_is_room_for(count: int, most: int) -> None:
    assert len(every(count, most)) <= most
    assert list(every(count, most))[:1] == [0][:count]


def test_coordinates_are_short() -> None:
    assert [number(v) for v in (10, 2.5, 1 / 3, 0)] == ["10", "2.5", "0.33", "0"]


def test_betas_fit_a_cell() -> None:
    assert [beta_text(b) for b in (1.0, 0.999, 0.5, 0.0)] == ["1", ".999", ".5", "0"]


def test_many_classes_end_in_a_row_of_others() -> None:
    story = example(2, thin=50)
    rows = shown_classes(story)
    assert list(rows) == list(story.windows[0].classes) + [
        c for c in story.windows[1].classes if c not in story.windows[0].classes
    ]
    crowded = {f"class {i}": 100 - i for i in range(SHOWN_CLASSES + 6)}
    first = replace(story.windows[0], classes=crowded)
    rows = shown_classes(replace(story, windows=(first, story.windows[1])))
    assert len(rows) == SHOWN_CLASSES
    assert sum(len(labels) for labels in rows.values()) > SHOWN_CLASSES
    assert list(rows)[-1].endswith("others")
