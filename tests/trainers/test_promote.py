"""The first gate: never on too little, never something worse."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainers.promote import Evidence, GateRules, Showing, judge

RULES = GateRules()
GOOD = Showing(events=500, accuracy=0.9, nll=0.3, ece=0.03)
unit = st.floats(0, 1)


def passes(evidence: Evidence, rules: GateRules = RULES) -> bool:
    return all(check.passed for check in judge(rules, evidence))


def test_the_first_candidate_is_judged_by_itself() -> None:
    assert passes(Evidence(candidate=GOOD, champion=None, kl_per_example=1.0))
    assert not passes(Evidence(candidate=replace(GOOD, ece=0.5), champion=None, kl_per_example=1.0))


@given(st.integers(0, 99), unit, unit)
def test_too_few_labels_never_promote(events: int, accuracy: float, ece: float) -> None:
    few = Showing(events=events, accuracy=accuracy, nll=0.0, ece=ece)
    assert not passes(Evidence(candidate=few, champion=None, kl_per_example=0.0))


@given(unit, st.floats(0, 10))
def test_worse_than_the_champion_never_promotes(accuracy: float, nll: float) -> None:
    seen = replace(GOOD, accuracy=accuracy, nll=nll)
    promoted = passes(Evidence(candidate=seen, champion=GOOD, kl_per_example=1.0))
    assert promoted == (nll - GOOD.nll <= 0.05 and GOOD.accuracy - accuracy <= 0.02)


def test_a_window_that_moved_the_belief_oddly_far_is_looked_at() -> None:
    assert not passes(Evidence(candidate=GOOD, champion=None, kl_per_example=80.0))
