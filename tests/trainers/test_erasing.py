"""An event is forgotten by a chain that goes on, wherever the process dies; belief and positions are kept."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.archive import ArchiveWriter, read_archive
from connectors.codec import decoder
from connectors.ledger import open_ledger
from connectors.memory import MemorySource
from posterior.snapshot import Circumstance, Fence, LedgerCorrupt, Snapshot, forgotten, stand_in
from stream.erasure import LeftOut, mentions, named, read_husk
from stream.intake import at_index
from stream.plan import Counts
from tests.trainers.tally import Tally
from tests.trainers.world import CODEC, RULES, World, judged, mails
from trainers.branching import rewound_to
from trainers.erasing import EVENTS, LEARNED, Eraser, Trace, trace
from trainers.line import state_behind
from trainers.loop import run
from trainers.parts import Parts, Rules

STEPS = [
    "before-erasure",
    "after-states",
    "before-ledger-commit",
    "in-ledger-commit",
    "after-ledger-commit",
    "after-erasure",
    "before-removal",
    "after-removal",
]


class Died(Exception):
    """The process is gone."""


def upto(windows: int) -> Rules:
    return replace(RULES, max_windows=windows)


Make = Callable[[], World]


@pytest.fixture(params=["memory", "sql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Return what makes a world on either ledger; several of them may be alive."""
    opened, numbers = [], itertools.count()

    def made() -> World:
        world = World(mails())
        if request.param == "sql":
            url = f"sqlite:///{tmp_path}/{next(numbers)}.db"
            world.ledger = open_ledger(url, world.blobs, crash=world._step)  # type: ignore[assignment] # the same port
            world.ledger.create(RULES.chain)
            opened.append(world.ledger)
        return world

    yield made
    for ledger in opened:
        ledger.close()


def erase(
    world: World, *ids: str, crash: Callable[[str], None] = lambda _: None
) -> tuple[Trace, Snapshot | None, list[str]]:
    """Do once what the command does."""
    world.crash = crash
    out = LeftOut(frozenset(map(named, ids)))
    fence = world.ledger.acquire("main", owner="eraser", ttl_s=60, takeover=True)
    eraser = Eraser(
        ledger=world.ledger,
        blobs=world.blobs,
        circumstance=lambda _: Circumstance(at_ms=9, host="h", code_version="0"),
        actor="ada@host",
        at_ms=9,
        crash=crash,
    )
    found = trace(world.ledger, world.blobs, RULES.chain, out)
    row = eraser.forget(fence, found)
    gone = eraser.remove(out, ["main"])
    world.crash = lambda _: None
    return found, row, gone


def waiting(world: World) -> list[str]:
    """Return the ids of events that wait in the head's state, in order."""
    head = world.ledger.head("main")
    assert head is not None
    data = json.loads(world.blobs.get(head.stream_state))
    return [row[0] for row in (*data["store"]["events"], *data["window"])]


def records_of(world: World, head: Snapshot, *ids: str) -> int:
    """Return how many of the records behind a row are about these events."""
    said = [json.dumps(i).encode() for i in ids]
    behind = [
        raw
        for span in head.spans
        for raw in world.log.lanes[span.topic, span.partition]
        if raw.position.offset < span.low or raw.position.offset in span.beyond
    ]
    return sum(any(i in (raw.value or b"") for i in said) for raw in behind)


def held_anywhere(world: World, *ids: str) -> list[str]:
    """Return the shas of blobs that say an id as JSON does, or its text."""
    return [sha for sha, data in world.blobs.stored.items() for i in ids if json.dumps(i).encode() in data]


def assert_accounts(world: World) -> None:
    for row in world.ledger.history("main"):
        counts = Counts(**row.counts)
        assert counts.balance() == 0
        assert counts.consumed == sum(span.consumed for span in row.spans)
        state_behind(world.blobs, world.ledger.erasures("main"), row)


def assert_consistent(world: World) -> None:
    assert_accounts(world)
    assert all(a.spans == b.spans_before for a, b in itertools.pairwise(world.ledger.history("main")))


def test_the_row_keeps_belief_and_positions_and_says_who_when_and_which(make: Make) -> None:
    world = make()
    before = world.go(upto(3))
    event = waiting(world)[0]
    found, row, _ = erase(world, event)
    assert row is not None
    assert (row.kind, row.seq, row.parent) == ("erased", before.seq + 1, before.sha)
    for name in ("posterior", "spans", "labels", "settings", "index"):
        assert getattr(row, name) == getattr(before, name)
    assert row.report[EVENTS] == [named(event)]
    assert (row.report["by"], row.report["at_ms"]) == ("ada@host", 9)
    assert event not in repr(row)
    assert row.counts["erased"] in {1, 2}
    assert row.counts["pending"] == before.counts["pending"] - row.counts["erased"]
    assert set(found.learned) == set()


def test_no_blob_speaks_of_it_and_every_row_still_has_its_state(make: Make) -> None:
    world = make()
    world.go(upto(4))
    ids = (*waiting(world)[:2], "m3", "m10")
    assert held_anywhere(world, *ids)
    erase(world, *ids)
    assert held_anywhere(world, *ids) == []
    assert_consistent(world)


def test_which_windows_learned_from_it_is_known_now_and_later(make: Make) -> None:
    world = make()
    world.go(upto(4))
    found, row, _ = erase(world, "m3")
    assert row is not None
    (learned,) = found.windows
    assert learned.kind == "learned"
    assert row.report[LEARNED] == {named("m3"): [learned.sha]}
    plan = world.ledger.plan("main", str(learned.plan))
    assert plan is not None
    mail = next(
        raw for lane in world.log.lanes.values() for raw in lane if b'"id": "m3"' in (raw.value or b"")
    )
    assert hashlib.sha256(mail.value or b"").hexdigest() in {m[1] for m in plan.content["members"]}
    again = trace(world.ledger, world.blobs, RULES.chain, LeftOut(frozenset({named("m3")})))
    assert again.windows == [learned]
    assert not again.fresh
    assert not again.states


def test_a_second_time_nothing_is_left(make: Make) -> None:
    world = make()
    world.go(upto(3))
    event = waiting(world)[0]
    erase(world, event)
    rows = world.shas()
    found, row, gone = erase(world, event)
    assert (row, gone, found.states, found.fresh) == (None, [], (), frozenset())
    assert world.shas() == rows


def test_the_stream_goes_on_without_it_though_the_log_still_holds_it(make: Make) -> None:
    world = make()
    world.go(upto(3))
    waits = waiting(world)[0]
    later = "m140"  # not read yet
    erase(world, waits, later)
    head = world.go()
    out = LeftOut(frozenset({named(waits), named(later)}))
    assert not any(mentions(data, out) for data in map(world.blobs.get, _states(world)))
    assert head.counts["erased"] == records_of(world, head, waits, later)
    assert_consistent(world)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_kept_or_filed_of_it_again_is_its_place(make: Make, tmp_path: Path, form: str) -> None:
    """The log still holds it: a stretch that is read again must not bring its text back."""
    world, folder = make(), tmp_path / "archive"
    world.go(upto(3))
    later = "m140"  # not read yet
    for lane in world.log.lanes:
        world.log.append(lane, json.dumps({"id": later, "text": "Ada", "time": "soon"}).encode())
    erase(world, later)
    writer = ArchiveWriter(folder, form=form)
    world.go(keep=writer.add)
    writer.flush()
    records = list(read_archive(folder))
    assert len([raw for raw in records if read_husk(raw)]) == 2
    held = [*records, *(aside.raw for aside in world.asides)]
    assert not [raw for raw in held if later.encode() in (raw.value or b"") or b"Ada" in (raw.value or b"")]
    assert not [path for path in folder.iterdir() if b"Ada" in path.read_bytes()]
    assert [a for a in world.asides if a.refusal is not None and a.raw.value is None]


def _states(world: World) -> list[str]:
    return [row.stream_state for row in world.ledger.history("main")[5:]]


@pytest.fixture
def undisturbed(make: Make) -> World:
    world = make()
    world.go(upto(3))
    erase(world, "m3", "m70", waiting(world)[-1])
    world.go()
    return world


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", [1, 2])
def test_dying_anywhere_leaves_what_the_same_call_finishes(
    make: Make, undisturbed: World, step: str, at: int
) -> None:
    world = make()
    world.go(upto(3))
    ids, seen = ("m3", "m70", waiting(world)[-1]), 0

    def crash(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == at:
            raise Died

    try:
        erase(world, *ids, crash=crash)
    except Died:
        world.crash = lambda _: None
        assert_consistent(world)
        erase(world, *ids)
    else:
        assert at == 2  # of removals there are several
        assert "removal" not in step
    assert held_anywhere(world, *ids) == []
    world.go()
    assert world.shas() == undisturbed.shas()


def test_an_open_plan_is_superseded_for_it_may_hold_the_event(make: Make) -> None:
    world = make()
    world.go(upto(2))

    def crash(step: str) -> None:
        if step == "after-plan":
            raise Died

    with pytest.raises(Died):
        world.go(seed=1, crash=crash)
    plan = world.ledger.open_plan("main")
    assert plan is not None
    erase(world, waiting(world)[0])
    closed = world.ledger.plan("main", plan.sha)
    assert closed is not None
    assert (closed.status, closed.reason) == ("superseded", "an event was erased")
    world.go()


def test_a_chain_that_is_cut_back_does_not_remember_it_again(make: Make) -> None:
    """Repair sets the erasing row aside; its erasure holds, and so it does for records read again."""
    world = make()
    world.go(upto(3))
    event = waiting(world)[-1]
    first = world.ledger.history("main")[1]
    assert not mentions(world.blobs.get(first.stream_state), LeftOut(frozenset({named(event)})))
    _, row, _ = erase(world, event)
    assert row is not None
    for damaged in world.ledger.history("main")[2:]:
        world.blobs.stored.pop(damaged.posterior, None)
    fence = world.ledger.acquire("main", owner="repair", ttl_s=60, takeover=True)
    assert row.sha in world.ledger.truncate(fence, "repaired")
    assert world.ledger.history("main")[-1].index == 1
    world.go()
    out = LeftOut(frozenset({named(event)}))
    for one in world.ledger.history("main"):
        state = state_behind(world.blobs, world.ledger.erasures("main"), one)
        assert not mentions(state, out)
    assert held_anywhere(world, event) == []


def test_a_damaged_head_is_cut_back_to_a_row_whose_state_was_replaced_and_no_further(make: Make) -> None:
    world = make()
    before = world.go(upto(3))
    _, row, _ = erase(world, waiting(world)[0])
    assert row is not None
    found = stand_in(world.ledger.erasures("main"), before.stream_state)
    assert found is not None
    assert found.instead == row.stream_state
    world.blobs.stored.pop(row.stream_state)  # the head had spoken of it, so both rows have this one state
    fence = world.ledger.acquire("main", owner="repair", ttl_s=60, takeover=True)
    assert world.ledger.truncate(fence, "repaired") == [row.sha, before.sha]
    assert forgotten(world.ledger.erasures("main"))


def test_a_chain_begun_later_from_the_same_topics_does_not_learn_it(make: Make) -> None:
    world = make()
    world.go(upto(3))
    erase(world, "m3")
    other = replace(RULES, chain=replace(RULES.chain, name="later"))
    world.ledger.create(other.chain)
    _run(world, other)
    out = LeftOut(frozenset({named("m3")}))
    assert not any(mentions(world.blobs.get(s.stream_state), out) for s in world.ledger.history("later"))
    head = world.ledger.history("later")[-1]
    assert head.counts["erased"] == records_of(world, head, "m3") == 2


def go_back(world: World, champion: Snapshot) -> None:
    world.ledger.decide(
        "main",
        at_ms=1,
        actor="ada",
        action="rollback",
        snapshot=champion.sha,
        evidence={"continue_from": "relearn"},
    )


def test_learning_goes_back_over_an_erasure_and_does_not_remember_it(make: Make) -> None:
    world = make()
    world.go(upto(2))
    champion = world.ledger.history("main")[1]
    event = next(i for i in waiting(world) if spoken_of(world, champion, i))
    world.go(upto(2))
    erase(world, event)
    go_back(world, champion)
    head = world.go()
    assert_accounts(world)
    assert held_anywhere(world, event) == []
    assert head.counts["erased"] == records_of(world, head, event)
    (branch,) = [row for row in world.ledger.history("main") if row.kind == "branch"]
    assert branch.counts["erased"] > 0
    assert erase(world, event)[1] is None


def spoken_of(world: World, row: Snapshot, event: str) -> bool:
    """Tell whether an event waits in the state behind a row."""
    state = state_behind(world.blobs, world.ledger.erasures("main"), row)
    return bool(mentions(state, LeftOut(frozenset({named(event)}))))


def test_a_state_that_came_back_from_a_backup_is_forgotten_again(make: Make) -> None:
    """An earlier release went back to the champion's state as it lay there."""
    world = make()
    world.go(upto(2))
    champion, event = world.ledger.history("main")[1], waiting(world)[0]
    event = next(i for i in waiting(world) if spoken_of(world, champion, i))
    backup = at_index(world.blobs.get(champion.stream_state), 2)
    _, row, _ = erase(world, event)
    assert row is not None
    history = world.ledger.history("main")
    fence = world.ledger.acquire("main", owner="o", ttl_s=60, takeover=True)
    back = replace(rewound_to(champion, row, history, "a decision"), stream_state=world.blobs.put(backup))
    world.ledger.commit(fence, back, Circumstance(at_ms=0, host="", code_version=""))
    assert held_anywhere(world, event)
    _, again, _ = erase(world, event)
    assert again is not None
    assert held_anywhere(world, event) == []
    world.go()
    assert_accounts(world)


def _run(world: World, rules: Rules) -> None:
    clock = iter(range(0, 10**9, 5))
    parts = Parts(
        source=MemorySource(world.log, seed=0),
        decode=decoder(CODEC),
        ledger=world.ledger,
        blobs=world.blobs,
        updater=Tally(),
        score=judged,
        aside=world.asides.extend,
        keep=lambda _: None,
        circumstance=lambda seconds: Circumstance(at_ms=0, host="", code_version="", seconds=seconds),
        now_ms=lambda: next(clock),
    )
    run(parts, rules, world.ledger.acquire(rules.chain.name, owner="o", ttl_s=60, takeover=True))


def test_what_a_row_does_away_with_is_checked(make: Make) -> None:
    world = make()
    head = world.go(upto(2))
    fence: Fence = world.ledger.acquire("main", owner="o", ttl_s=60, takeover=True)
    found = trace(world.ledger, world.blobs, RULES.chain, LeftOut(frozenset({named(waiting(world)[0])})))
    circumstance = Circumstance(at_ms=0, host="", code_version="")
    eraser = Eraser(
        ledger=world.ledger, blobs=world.blobs, circumstance=lambda _: circumstance, actor="a", at_ms=1
    )
    row = eraser.forget(fence, found)
    assert row is not None
    erasures = world.ledger.erasures("main")
    child = replace(row, seq=row.seq + 1, parent=row.sha)
    for spoilt, done in [
        (replace(child, kind="progress"), erasures),
        (child, erasures),  # they name another row
        (replace(child, posterior=world.ledger.history("main")[0].posterior), ()),
        (replace(child, spans=head.spans[1:]), ()),
        (replace(child, spans=tuple(replace(s, low=s.low + 1) for s in child.spans)), ()),
    ]:
        with pytest.raises(LedgerCorrupt):
            world.ledger.commit(fence, spoilt, circumstance, erased=done)
    assert world.ledger.head("main") == row
