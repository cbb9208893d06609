"""A verdict over a chain of which something was erased can be "no": each way a row may differ is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.snapshot import Snapshot, Span
from priorflow.erasing import concerned
from priorflow.replay_erased import Past
from stream.erasure import named
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, Writer, a_chain, root
from tests.trainers.test_erasing import erase, spoken_of, upto, waiting
from tests.trainers.test_relabelling import rename
from tests.trainers.world import World, mails
from trainers.erasing import EVENTS
from trainers.line import NEW, state_behind

Spoil = Callable[[Snapshot], Snapshot]


@pytest.fixture(scope="module")
def world() -> World:
    """Two windows, an event erased that waited behind both, a class renamed, and two windows more."""
    made = World(mails())
    made.go(upto(2))
    rows = made.ledger.history("main")
    erase(made, next(event for event in waiting(made) if spoken_of(made, rows[1], event)))
    rename(made, "money", "advertising")
    made.go(upto(2))
    return made


def parent_and_child(world: World, kind: str) -> tuple[Snapshot, Snapshot]:
    rows = world.ledger.history("main")
    at = next(place for place, row in enumerate(rows) if row.kind == kind)
    return rows[at - 1], rows[at]


def reported(**more: object) -> Spoil:
    return lambda row: replace(row, report={**row.report, **more})


OTHER: dict[str, Spoil] = {
    "tensors": lambda row: replace(row, posterior="0" * 64),
    "labels": lambda row: replace(row, labels=row.labels[::-1]),
    "positions": lambda row: replace(row, spans=row.spans[1:]),
    "place": lambda row: replace(row, index=row.index + 1),
    "settings": lambda row: replace(row, settings="0" * 64),
}


@pytest.mark.parametrize("how", [*OTHER, "events", "state"])
def test_a_row_that_forgets_is_its_parent_without_what_it_names(world: World, how: str) -> None:
    past = Past(world.ledger, world.blobs, "main")
    parent, child = parent_and_child(world, "erased")
    assert past.forgotten_again(parent, child)
    spoilt = OTHER | {
        "events": reported(**{EVENTS: [named("another")]}),
        "state": lambda row: replace(row, stream_state=world.ledger.history("main")[1].stream_state),
    }
    assert not past.forgotten_again(parent, spoilt[how](child))


@pytest.mark.parametrize("how", [*OTHER, "name", "state"])
def test_a_row_that_renames_is_its_parent_under_the_name_it_says(world: World, how: str) -> None:
    past = Past(world.ledger, world.blobs, "main")
    parent, child = parent_and_child(world, "relabelled")
    assert past.renamed_again(parent, child)
    spoilt = OTHER | {
        "name": reported(**{NEW: "another"}),
        "state": lambda row: replace(row, stream_state=parent.stream_state),
    }
    assert not past.renamed_again(parent, spoilt[how](child))


@pytest.mark.parametrize("how", [*OTHER, "number", "word", "state", "refused"])
def test_a_window_is_the_same_but_for_what_was_erased(world: World, how: str) -> None:
    past, erasures = Past(world.ledger, world.blobs, "main"), world.ledger.erasures("main")
    rows = world.ledger.history("main")
    row, content = rows[2], state_behind(world.blobs, erasures, rows[2])
    assert past.same_but_for_erased(row, content, row)
    rounded = reported(kl_nats=row.report["kl_nats"] * (1 + 1e-7), arrivals=row.report["arrivals"] + 1)
    assert past.same_but_for_erased(rounded(row), content, row)
    if how == "state":
        assert not past.same_but_for_erased(row, state_behind(world.blobs, erasures, rows[1]), row)
        return
    spoilt = OTHER | {
        "number": reported(kl_nats=row.report["kl_nats"] * 1.001),
        "word": reported(drift=not row.report["drift"]),
        "refused": lambda one: replace(one, rejected=("mails[0]@7",)),
    }
    assert not past.same_but_for_erased(spoilt[how](row), content, row)


def test_where_nothing_was_erased_nothing_is_excused() -> None:
    made = World(mails())
    row = made.go(upto(1))
    past = Past(made.ledger, made.blobs, "main")
    assert not past.same_but_for_erased(row, made.blobs.get(row.stream_state), row)


def test_an_erasure_concerns_every_chain_that_reads_one_of_the_topics(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path / "blobs")
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    for name in ("main", "again"):
        Writer.on_new_chain(ledger, blobs, name)
    for name, topic in (("labels-only", "labels"), ("elsewhere", "others")):
        ledger.create(a_chain(name))
        first = replace(root(blobs, name), spans=(Span(topic, 0, 0, None, (), 0),))
        ledger.commit(ledger.acquire(name, owner=OWNER, ttl_s=60), first, CIRCUMSTANCE)
    assert [chain.name for chain in concerned(ledger, "main")] == ["main", "again", "labels-only"]
    assert [chain.name for chain in concerned(ledger, "elsewhere")] == ["elsewhere"]
    ledger.close()
