"""How far two answers are apart, and which events are compared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorflow.serving.comparing import Beside, Heard, Sums, chosen, counted, difference
from tests.app.serving.clerk import Clerk, version
from trainers.answer import Answer

CLASSES = ("a", "b", "c", "d")


def said(novelty: float, **p: float) -> Answer:
    label = max(p, key=lambda k: p[k])
    doubt = {"interval": (0.0, 1.0), "total": 1.0, "aleatoric": 1.0, "epistemic": 0.0}
    return Answer(label=label, probabilities=p, novelty=novelty, **doubt)  # type: ignore[arg-type] # of two kinds


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Return an answer over some of the classes, and a new one."""
    known = draw(st.lists(st.sampled_from(CLASSES), min_size=1, unique=True))
    weights = draw(st.lists(st.floats(1e-6, 1), min_size=len(known) + 1, max_size=len(known) + 1))
    p = [w / math.fsum(weights) for w in weights]
    told = dict(zip(known, p, strict=False))
    return said(p[-1], **told)


@given(answers())
def test_an_answer_is_not_apart_from_itself(answer: Answer) -> None:
    found = difference(answer, answer)
    assert (found.agrees, found.delta_p, found.kl) == (True, 0.0, 0.0)


@given(answers(), answers())
def test_distances_are_bounds_of_each_other(one: Answer, other: Answer) -> None:
    """Pinsker: a set of classes on which they differ by d puts them at least 2 d^2 nats apart."""
    found = difference(one, other)
    assert 0 <= found.delta_p <= 1
    assert found.kl >= 2 * found.delta_p**2 - 1e-9
    assert found.agrees == (one.label == other.label)


def test_kl_is_what_is_written() -> None:
    found = difference(said(0.3, a=0.7), said(0.1, a=0.5, b=0.4))
    half = 0.3 / 2  # what the first says of "b" and of anything else new
    expected = 0.7 * math.log(0.7 / 0.5) + half * math.log(half / 0.4) + half * math.log(half / 0.1)
    assert found.kl == pytest.approx(expected)
    assert found.delta_p == pytest.approx(0.2)


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_who_is_chosen_for_a_share_is_chosen_for_any_larger(name: str, one: float, other: float) -> None:
    assert chosen(name, min(one, other)) <= chosen(name, max(one, other))
    assert chosen(name, 1.0)
    assert not chosen(name, 0.0)


def test_a_share_is_a_share() -> None:
    assert sum(chosen(f"mail-{i}", 0.25) for i in range(4_000)) == pytest.approx(1_000, abs=100)


def beside(one: int, other: int, text: str, *, text_of_other: str | None = None) -> Beside:
    champion, shadow = version(Clerk("champion"), one), version(Clerk("shadow"), other)
    said = champion.answerer.answer(text)
    also = shadow.answerer.answer(text if text_of_other is None else text_of_other)
    return Beside(
        event_id="m",
        at_ms=0,
        champion=Heard(version=champion, answer=said, seconds=0.5),
        shadow=Heard(version=shadow, answer=also, seconds=0.25),
        difference=difference(said, also),
    )


def test_sums_are_of_one_pair() -> None:
    sums = Sums()
    for _ in range(3):
        sums = counted(sums, beside(1, 2, "a long text, all in all", text_of_other="no"))
    assert (sums.events, sums.agreed, sums.withheld_alike, sums.seconds) == (3, 0, 3, 0.75)
    sums = counted(sums, beside(1, 2, "ten signs.", text_of_other="a long text, all in all"))
    assert (sums.events, sums.agreed, sums.withheld_alike) == (4, 1, 3)
    again = counted(sums, beside(2, 3, "a"))
    assert (again.events, again.agreed, again.delta_p, again.kl) == (1, 1, 0.0, 0.0)
