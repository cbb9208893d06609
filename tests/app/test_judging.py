"""What a window's report says of its forecasts."""

from __future__ import annotations

import json

from posterior.panel import NEW
from priorflow.judging import class_scores
from stream.plan import Member
from stream.record import Position
from trainers.abstention import CONFIDENCES

AT = Position("mails", 0, 1)


def member(label: str, forecast: dict[str, float] | None) -> Member:
    return Member("id", "text", label, None, AT, "0" * 64, 0, AT, "0" * 64, 0, 0, forecast)


def test_confidences_are_counted_by_hundredths_with_how_many_were_right() -> None:
    told = [
        member("spam", {"spam": 0.9, "ham": 0.05, NEW: 0.05}),
        member("ham", {"spam": 0.905, "ham": 0.045, NEW: 0.05}),
        member("never seen", {"spam": 0.3, "ham": 0.2, NEW: 0.5}),  # the guess is a class that has a name
        member("spam", {"spam": 0.8, "ham": 0.2}),  # a share is kept for new classes where none is told
        member("spam", None),
    ]
    numbers = class_scores(told, 0.1).numbers
    assert numbers[CONFIDENCES] == [[30, 1, 0], [72, 1, 1], [90, 2, 1]]
    assert json.loads(json.dumps(numbers)) == numbers


def test_nothing_foretold_has_none() -> None:
    assert class_scores([member("spam", None)], 0.1).numbers[CONFIDENCES] == []
