"""A story is read off the ledger: every closed window, and every decision with its reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from posterior.snapshot import Decision, Kind, Snapshot, Span
from priorflow.story_ledger import reasons, scores, verdicts, window_rows
from trainers.promote import Evidence, GateRules, Showing, as_evidence, judge

SPAN = Span("mails", 0, 10, 1_000, (), 10)


def _snapshot(seq: int, kind: Kind, index: int, labels: tuple[str, ...], **said: Any) -> Snapshot:
    report = {
        "members": 40,
        "foretold": 38,
        "accuracy": 0.5,
        "nll": 1.5,
        "ece": 0.1,
        "brier": 0.6,
        "kl_nats": 12.0,
        "beta": 0.9,
        "drift": False,
        "alarms": [],
        "end_ms": 1_000 * seq,
        "classes": {"spam": 40},
        **said,
    }
    return Snapshot(
        chain="mails",
        seq=seq,
        index=index,
        kind=kind,
        parent=f"{seq - 1:064}" if seq else None,
        plan=None,
        posterior="p" * 64,
        stream_state="s" * 64,
        settings="e" * 64,
        labels=labels,
        spans_before=(SPAN,),
        spans=(SPAN,),
        counts={"consumed": 80, "learned": 80},
        report=report if seq else {},
    )


HISTORY = (
    _snapshot(0, "root", 0, ()),
    _snapshot(1, "learned", 1, ("spam",), foretold=0, accuracy=None, nll=None, ece=None, brier=None),
    _snapshot(2, "progress", 1, ("spam",)),
    _snapshot(
        3,
        "learned",
        2,
        ("spam", "rpm", "ilug"),
        drift=True,
        alarms=[["hddmw_error", 3], ["adwin_nll", 9], ["adwin_nll", 30]],
    ),
    _snapshot(4, "quarantined", 3, ("spam", "rpm", "ilug"), quarantined="site x is NaN"),
)


def _version(sha: str) -> int | None:
    return {s.sha: s.seq for s in HISTORY if s.kind == "learned"}.get(sha)


def test_windows_are_rows_and_nothing_else_is() -> None:
    rows = window_rows(HISTORY, _version)
    assert [row.index for row in rows] == [1, 2, 3]
    assert [row.kind for row in rows] == ["learned", "learned", "quarantined"]
    assert [row.mlflow_version for row in rows] == [1, 3, None]
    assert [row.snapshot_sha for row in rows] == [HISTORY[k].sha for k in (1, 3, 4)]


def test_a_class_is_new_once_in_order_of_first_sight() -> None:
    assert [row.new_classes for row in window_rows(HISTORY, _version)] == [("spam",), ("rpm", "ilug"), ()]


def test_a_detector_is_named_once_in_words() -> None:
    row = window_rows(HISTORY, _version)[1]
    assert row.drift
    assert row.alarms == ("early warning: errors", "surprise rose")


def test_windows_without_forecasts_have_no_score() -> None:
    made = scores(HISTORY)
    assert sorted(made) == [2, 3]
    assert made[2].count == 38
    assert window_rows(HISTORY, _version)[0].accuracy is None


def _decision(action: Literal["promote", "refuse", "rollback"], candidate: Showing) -> Decision:
    rival = Showing(events=487, accuracy=0.80, nll=0.70, ece=0.05)
    evidence = Evidence(candidate=candidate, champion=rival, kl_per_example=0.61)
    checks = judge(GateRules(), evidence)
    return Decision(
        seq=1,
        chain="mails",
        at_ms=5,
        actor="gate",
        action=action,
        snapshot=HISTORY[3].sha,
        previous=None,
        evidence=as_evidence(evidence, checks),
        before="",
        hash="h" * 64,
    )


def test_a_refusal_says_what_failed_and_only_that() -> None:
    said = reasons(_decision("refuse", Showing(events=487, accuracy=0.10, nll=3.70, ece=0.05)))
    assert said == (
        "3.00 nats per mail more than the champion (at most 0.05 more)",
        "70.00 points of accuracy less than the champion (at most 2 less)",
    )


def test_a_promotion_says_all_that_was_looked_at() -> None:
    said = reasons(_decision("promote", Showing(events=487, accuracy=0.82, nll=0.66, ece=0.04)))
    assert said == (
        "487 labelled mails",
        "calibration error 0.040",
        "moved 0.61 nats per mail",
        "0.04 nats per mail less than the champion",
        "2.00 points of accuracy more than the champion",
    )


@pytest.mark.parametrize("action", ["promote", "refuse", "rollback"])
def test_decisions_know_their_window(action: Literal["promote", "refuse", "rollback"]) -> None:
    line = _decision(action, Showing(events=487, accuracy=0.82, nll=0.66, ece=0.04))
    (made,) = verdicts([line], HISTORY, _version)
    assert (made.action, made.window, made.mlflow_version) == (action, 2, 3)
    (elsewhere,) = verdicts([line], HISTORY[:2], lambda _: None)
    assert (elsewhere.window, elsewhere.mlflow_version) == (None, None)


def test_only_a_gate_that_found_no_champion_says_so() -> None:
    first = replace(
        _decision("promote", Showing(events=487, accuracy=0.82, nll=0.66, ece=0.04)),
        evidence={"checks": [["labels", True, 487, 100]], "champion": None},
    )
    assert reasons(first) == ("487 labelled mails", "no champion to compare with yet")
    assert reasons(replace(first, action="rollback", evidence={"why": "an operator asked"})) == ()
