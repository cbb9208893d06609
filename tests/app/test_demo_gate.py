"""The demo's bad candidate: bad through and through, handed to the gate, and refused or the demo fails."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from typing import Any, final

import pytest
import torch

from posterior.family import Tensors
from posterior.tensors import to_bytes
from priorflow.config import Settings, load
from priorflow.console import JsonLines
from priorflow.demo_gate import PLANTED, confused, plant
from priorflow.demo_promises import Kept, tell_broken
from tests.app.judged import CLASSES, Court, forecast, member, rules, said_alone
from tests.connectors.chain_builder import a_chain, learned
from tests.trainers.conftest import SPEC
from tests.trainers.orders import LEARN, order
from trainers.model import AdaptedModel
from trainers.window import FamilySpec, Local, Order, Outcome

TEXTS = ("kernel module compiled on the box", "win cheap cash now", "kernel of cheap cash")


def test_whatever_was_known_of_a_class_is_told_of_its_neighbour() -> None:
    """Three classes, of unlike numbers of texts: what is foretold of one is now foretold of the next."""
    local, learn = Local(AdaptedModel(SPEC)), replace(LEARN, draws=0, panel=True)
    blob = FamilySpec(name="blob", options={"sd_head": 0.1})

    def three(window: int, state: Tensors) -> Order:
        known = window > 0
        told = [f"{text} {window}-{i}" for i, text in enumerate([*TEXTS[:1] * 9, *TEXTS[1:2] * 6, TEXTS[2]])]
        members = tuple(zip(told, ["a"] * 9 + ["b"] * 6 + ["c"], strict=True))
        asked = replace(order(window, state, known=known, family=blob), learn=learn, members=members)
        return replace(asked, labels=tuple("abc"), labels_before=tuple("abc") * known, arrivals=tuple(told))

    parent = local.carry_out(three(0, {})).tensors
    after = local.carry_out(three(1, parent)).tensors
    sound, bad = (
        torch.tensor(local.carry_out(three(2, state)).forecasts) for state in (after, confused(after))
    )
    assert torch.allclose(bad[:, :3], sound[:, :3].roll(1, dims=1), atol=1e-6)
    assert torch.allclose(bad[:, 3:], sound[:, 3:], atol=1e-6)
    assert float((sound[:, 0] - sound[:, 1]).abs().mean()) > 0.1


@final
@dataclass(frozen=True)
class Rows:
    """Foretells a text, which begins with its class, by that class's row of the head; or all alike."""

    blind: bool = False

    def carry_out(self, order: Order) -> Outcome:
        rows = order.parent["mean/head"].tolist()
        place = [CLASSES.index(text.split()[0]) for text in order.arrivals]
        return said_alone(order, [tuple(rows[0] if self.blind else rows[at]) for at in place])

    def close(self) -> None:
        """Hold nothing."""


SOUND = {"mean/head": torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)}
EVENTS = tuple(replace(member(1, i, 0, None), forecast=forecast(CLASSES[i % 2], 0.9)) for i in range(120))


def settings() -> Settings:
    gate = {"min_labels": 20, "min_labels_per_class": 5, "max_ece": 0.5}
    return load(overrides={f"gate.{name}": value for name, value in gate.items()})


def a_court() -> Court:
    """A chain of one window that knows two classes."""
    court = Court.opened()
    head = court.writer.head
    row = learned(court.blobs, head, court.writer.begin())
    court.writer.commit(replace(row, posterior=court.blobs.put(to_bytes(SOUND)), labels=CLASSES))
    return court


def planted(court: Court, updater: Rows, events: tuple[Any, ...] = EVENTS) -> tuple[bool, dict[str, Any]]:
    out, windows = io.StringIO(), {1: events} if events else {}
    refused = plant(settings(), court.ledger, court.blobs, updater, rules(a_chain()), windows, JsonLines(out))
    return refused, json.loads(out.getvalue().splitlines()[-1])


def test_a_planted_candidate_is_refused_and_the_line_says_why() -> None:
    court = a_court()
    refused, told = planted(court, Rows())
    (line,) = court.log()
    assert (refused, line.action, line.actor) == (True, "refuse", "demo")
    assert line.snapshot == told["snapshot"] == court.ledger.history(PLANTED)[-1].sha
    assert "worst class 'bill': 0 of 60 found" in told["text"]


def test_a_gate_that_does_not_refuse_it_is_told_and_is_no_refusal() -> None:
    """Of the text nothing is seen here, so the candidate is as good as any; it waits or passes."""
    court = a_court()
    refused, told = planted(court, Rows(blind=True), EVENTS[::2][:10])
    assert court.actions() != ["refuse"]
    assert not refused
    assert "NOT REFUSED" in told["text"]


@pytest.mark.parametrize("again", [Rows(), Rows(blind=True)])
def test_called_again_it_shows_the_line_that_was_written_and_writes_none(again: Rows) -> None:
    court = a_court()
    first = planted(court, Rows())
    assert planted(court, again) == first
    assert len(court.log()) == 1


def test_dying_between_planting_and_judging_the_next_call_judges() -> None:
    court = a_court()
    with pytest.raises(ValueError, match="not in tuple"):
        planted(court, Rows(), (replace(EVENTS[0], text="neither"),))
    assert court.ledger.chain(PLANTED) is not None
    assert planted(court, Rows())[0]


def test_without_a_window_nothing_was_refused() -> None:
    refused, told = planted(a_court(), Rows(), ())
    assert (refused, told["refused"]) == (False, False)


def test_whatever_was_promised_and_not_shown_is_named() -> None:
    every = {"promoted": True, "refused": True, "replayed": True, "taken_back": True}
    out = io.StringIO()
    assert tell_broken(Kept(**every), JsonLines(out)) == []
    assert out.getvalue() == ""
    named = [tell_broken(Kept(**{**every, name: False}), JsonLines(out)) for name in every]
    assert [len(one) for one in named] == [1, 1, 1, 1]
    assert len({one[0] for one in named}) == 4
    assert all("DID NOT SHOW" in json.loads(line)["text"] for line in out.getvalue().splitlines())
