"""What the guards ask about is the diagram and the counts of the newest events, as many as are needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior.calibration import reliability as at_once
from trainers.showing import Answered, Showing, class_counts, dump, load, reliability, shown

answers = st.lists(
    st.builds(
        Answered,
        label=st.sampled_from("abc"),
        guess=st.sampled_from("abc"),
        confidence=st.floats(0, 1),
        known=st.booleans(),
    ),
    max_size=30,
)
windows = st.lists(answers, max_size=6)
enough = st.integers(1, 40)


def counted(
    told: Sequence[list[Answered]], least: int, of_a_class: int, start: Showing | None = None
) -> Showing:
    showing = start or Showing()
    for window in told:
        showing = shown(showing, window, enough=least, enough_of_a_class=of_a_class)
    return showing


def newest(told: Sequence[list[Answered]], least: int) -> list[Answered]:
    """Return the events of the newest windows, as few as hold enough."""
    kept: list[Answered] = []
    for window in reversed(told):
        if len(kept) >= least:
            break
        kept = [*window, *kept]
    return kept


@given(windows, enough)
def test_calibration_is_that_of_the_newest_windows_that_hold_enough(
    told: list[list[Answered]], least: int
) -> None:
    showing, late = counted(told, least, 1), newest(told, least)
    confidence = torch.tensor([a.confidence for a in late], dtype=torch.float64)
    correct = torch.tensor([float(a.guess == a.label) for a in late], dtype=torch.float64)
    for ours, theirs in zip(reliability(showing), at_once(confidence, correct), strict=True):
        assert (ours.lower, ours.upper, ours.count) == (theirs.lower, theirs.upper, theirs.count)
        assert ours.confidence == pytest.approx(theirs.confidence)
        assert ours.accuracy == pytest.approx(theirs.accuracy)


@given(windows, enough)
def test_recall_is_that_of_the_newest_windows_that_hold_enough_of_the_class(
    told: list[list[Answered]], least: int
) -> None:
    whole = Counter(a.label for window in told for a in window if a.known)
    for count in class_counts(counted(told, 1, least)):
        mine = [[a for a in window if a.known and a.label == count.label] for window in told]
        late = newest([window for window in mine if window], least)
        assert count.labels == len(late)
        assert count.found == sum(a.guess == a.label for a in late)
        assert count.share == pytest.approx(whole[count.label] / whole.total())


@given(windows, windows, enough, enough)
def test_going_on_from_stored_sums_gives_the_same_bits(
    first: list[list[Answered]], then: list[list[Answered]], least: int, of_a_class: int
) -> None:
    stored = json.loads(json.dumps(dump(counted(first, least, of_a_class)), allow_nan=False))
    assert counted(then, least, of_a_class, load(stored)) == counted([*first, *then], least, of_a_class)


@given(windows, enough)
def test_what_is_kept_is_bounded(told: list[list[Answered]], least: int) -> None:
    showing = counted(told * 5, least, least)
    assert len(showing.windows) <= least
    assert all(len(seen.newest) <= least for seen in showing.classes.values())


def test_a_class_nobody_had_seen_is_no_lost_one_but_a_wrong_answer() -> None:
    showing = counted([[Answered(label="new", guess="a", confidence=0.9, known=False)]], 1, 1)
    assert class_counts(showing) == ()
    assert reliability(showing)[0].accuracy == 0


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_an_error(confidence: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        counted([[Answered(label="a", guess="b", confidence=confidence, known=True)]], 1, 1)


def test_damaged_sums_are_refused() -> None:
    told = dump(counted([[Answered(label="a", guess="a", confidence=0.5, known=True)]], 1, 1))
    (bins,) = told["windows"]
    for damage in ({"windows": [bins[1:]]}, {"windows": [[[1, 0.5, 2], *bins[1:]]]}):
        with pytest.raises(ValueError, match="damaged"):
            load({**told, **damage})
    with pytest.raises(ValueError, match="damaged"):
        load({**told, "classes": {"a": {"labels": 1, "newest": [[2, 1]]}}})
