"""The load test's checker can fail: each way of being mixed or misnamed is counted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.serving_answers import TOLERANCE, Voice, distance, faults, told_apart
from benchmarks.serving_load import Changed, Seen

OLD, NEW = "a" * 64, "b" * 64
TEXTS = ("one", "two")
EXPECTED = {
    OLD: Voice(number="1", answers={"one": {"x": 0.6, "y": 0.4}, "two": {"x": 0.2, "y": 0.8}}),
    NEW: Voice(number="2", answers={"one": {"x": 0.7, "y": 0.3}, "two": {"x": 0.1, "y": 0.8, "z": 0.1}}),
}
Change = Callable[[list[dict[str, Any]]], None]


def answer(sha: str, text: str) -> dict[str, Any]:
    voice = EXPECTED[sha]
    return {
        "snapshot": sha,
        "version": voice.number,
        "prediction_id": f"{text}.{sha[:12]}",
        "probabilities": dict(voice.answers[text]),
    }


def answered(sha: str) -> list[dict[str, Any]]:
    return [answer(sha, text) for text in TEXTS]


def borrow(answers: list[dict[str, Any]]) -> None:
    """Name one version and answer by the other."""
    answers[1]["probabilities"] = dict(EXPECTED[OLD].answers["two"])


def nudge(answers: list[dict[str, Any]]) -> None:
    answers[0]["probabilities"]["x"] += 2 * TOLERANCE


def leave_out(answers: list[dict[str, Any]]) -> None:
    del answers[1]["probabilities"]["z"]


def exchange(answers: list[dict[str, Any]]) -> None:
    """Give each text the other's answer."""
    first, second = answers
    first["probabilities"], second["probabilities"] = second["probabilities"], first["probabilities"]


def two_versions(answers: list[dict[str, Any]]) -> None:
    answers[1] = answer(OLD, "two")


def renumber(answers: list[dict[str, Any]]) -> None:
    answers[1]["version"] = "1"


def unnumber(answers: list[dict[str, Any]]) -> None:
    answers[0]["version"] = None


def misjoin(answers: list[dict[str, Any]]) -> None:
    answers[0]["prediction_id"] = f"one.{OLD[:12]}"


@pytest.mark.parametrize(
    ("change", "mixed", "misnamed"),
    [
        (borrow, True, False),
        (nudge, True, False),
        (leave_out, True, False),
        (exchange, True, False),
        (two_versions, True, False),
        (renumber, False, True),
        (unnumber, False, True),
        (misjoin, False, True),
    ],
)
def test_a_fault_is_counted_once_for_its_request(change: Change, mixed: bool, misnamed: bool) -> None:
    answers = answered(NEW)
    change(answers)
    found = faults(EXPECTED, TEXTS, answers)
    assert (found.mixed, found.misnamed) == (mixed, misnamed)
    seen = Seen(EXPECTED)
    for one in (answered(OLD), answers, answered(NEW)):
        seen.take(TEXTS, one)
    assert (seen.mixed, seen.misnamed) == (mixed, misnamed)


def test_answers_of_either_version_within_the_tolerance_are_sound() -> None:
    for sha in (OLD, NEW):
        answers = answered(sha)
        answers[0]["probabilities"]["x"] += TOLERANCE / 2
        found = faults(EXPECTED, TEXTS, answers)
        assert not found.mixed
        assert not found.misnamed


def test_a_snapshot_that_nobody_expects_is_a_fault() -> None:
    stranger = [one | {"snapshot": "c" * 64} for one in answered(NEW)]
    found = faults(EXPECTED, TEXTS, stranger)
    assert (found.mixed, found.misnamed) == (True, True)


def test_only_texts_that_tell_versions_apart_are_asked() -> None:
    same = {sha: Voice(number="1", answers={**v.answers, "dull": {"x": 1.0}}) for sha, v in EXPECTED.items()}
    assert told_apart(same, (*TEXTS, "dull")) == list(TEXTS)
    assert distance({"x": 1.0}, {"y": 1.0}) == 1.0


def test_a_change_is_timed_to_the_first_answer_of_the_new_and_the_last_of_the_old() -> None:
    seen = Seen(answered=[(9.0, NEW), (10.2, OLD), (10.5, NEW), (10.6, OLD), (10.9, NEW)])
    changed = Changed()
    changed.add(seen, 10.0, NEW, OLD)
    assert changed.first == [pytest.approx(0.5)]
    assert changed.last == [pytest.approx(0.6)]
    changed.add(seen, 10.7, NEW, OLD)
    assert changed.last[-1] == 0.0
