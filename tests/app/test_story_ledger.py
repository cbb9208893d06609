"""A story is read off the ledger: every closed window, and every decision with its reasons."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from posterior.snapshot import Action, Decision, Kind, Snapshot, Span
from priorflow.story import Taught
from priorflow.story_ledger import reasons, scores, verdicts, window_rows
from trainers.bounds import Finding, as_json

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


def test_what_a_window_taught_is_told_where_the_ledger_says_it() -> None:
    """Through JSON, as a ledger gives reports back."""
    said = {
        "nats_by_site": {"layer.5.query": 7.5, "head": 4.5},
        "nats_by_class": {"spam": [40, 2.5, 0.5]},
        "moved_most": [["mails[0]@12", 4.0, 0.25]],
        "effective_examples": 76.0,
    }
    rows = window_rows(
        (HISTORY[1], _snapshot(2, "learned", 2, ("spam",), **json.loads(json.dumps(said)))), _version
    )
    assert rows[0].taught is None
    assert rows[1].taught == Taught(
        by_site={"layer.5.query": 7.5, "head": 4.5},
        worth=76.0,
        by_class={"spam": (40, 2.5, 0.5)},
        moved=(("mails[0]@12", 4.0, 0.25),),
    )


def test_windows_without_forecasts_have_no_score() -> None:
    made = scores(HISTORY)
    assert sorted(made) == [2, 3]
    assert made[2].count == 38
    assert window_rows(HISTORY, _version)[0].accuracy is None


GATES = (
    Finding("better", "pass", "better than the champion: gain +0.210 nats per event"),
    Finding("calibration", "fail", "ece 0.413 on 487 labels, bound 0.200, and not by chance"),
    Finding("recall", "wait", "worst class 'rpm': 1 of 30 found; this may be chance"),
)


def _decision(action: Action, **said: Any) -> Decision:
    return Decision(
        seq=1,
        chain="mails",
        at_ms=5,
        actor="gate",
        action=action,
        snapshot=HISTORY[3].sha,
        previous=None,
        evidence={**as_json(GATES), **said},
        before="",
        hash="h" * 64,
    )


def test_a_refusal_says_what_failed_a_wait_what_it_waits_for_a_promotion_all() -> None:
    assert reasons(_decision("refuse")) == (GATES[1].line,)
    assert reasons(_decision("wait")) == (GATES[2].line,)
    assert reasons(_decision("promote")) == tuple(gate.line for gate in GATES)


def test_what_was_not_counted_and_what_a_person_said_is_told() -> None:
    said = reasons(_decision("wait", unheard=[4, 5], reopened="made of other bets", reason="by hand"))
    assert said[1:] == (
        "nothing was counted of window 4, 5",
        "counting began anew: made of other bets",
        "by hand",
    )


@pytest.mark.parametrize("action", get_args(Action))
def test_decisions_know_their_window(action: Action) -> None:
    line = _decision(action)
    (made,) = verdicts([line], HISTORY, _version)
    assert (made.action, made.window, made.mlflow_version) == (action, 2, 3)
    (elsewhere,) = verdicts([line], HISTORY[:2], lambda _: None)
    assert (elsewhere.window, elsewhere.mlflow_version) == (None, None)


def test_a_line_that_holds_nothing_says_nothing() -> None:
    assert reasons(replace(_decision("rollback"), evidence={})) == ()
