"""A class gets another name going forward: belief, positions and windows are what they would have been."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.ledger import open_ledger
from posterior.folding import once
from posterior.snapshot import MERGED, Circumstance, LedgerCorrupt, Snapshot
from stream.intake import Intake
from stream.plan import Counts
from stream.record import Label
from stream.relabelling import AS_THEY_CAME, renamed
from tests.stream.logs import RULES as STREAM
from tests.stream.logs import Log, Run, drive, logs
from tests.trainers.world import RULES, SPORT, WORDS, World, mails
from trainers.line import names_along
from trainers.parts import Rules
from trainers.relabelling import CannotRename, Renamer

many = settings(max_examples=150, deadline=None)
# Rows between two windows, whose states hold members of the open one.
BETWEEN = replace(STREAM, progress_every=3)
Make = Callable[[], World]
STEPS = [
    "before-renaming",
    "after-state",
    "before-ledger-commit",
    "in-ledger-commit",
    "after-ledger-commit",
    "after-renaming",
]


class Died(Exception):
    """The process is gone."""


def upto(windows: int) -> Rules:
    return replace(RULES, max_windows=windows)


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


def renamer(world: World, crash: Callable[[str], None]) -> Renamer:
    return Renamer(
        ledger=world.ledger,
        blobs=world.blobs,
        circumstance=lambda _: Circumstance(at_ms=9, host="h", code_version="0"),
        actor="ada@host",
        at_ms=9,
        reason="clearer",
        crash=crash,
    )


def rename(
    world: World, old: str, new: str, crash: Callable[[str], None] = lambda _: None
) -> Snapshot | None:
    world.crash = crash
    fence = world.ledger.acquire("main", owner="ada", ttl_s=60, takeover=True)
    row = renamer(world, crash).rename(fence, old, new)
    world.crash = lambda _: None
    return row


def merge(
    world: World, one: str, other: str, into: str, crash: Callable[[str], None] = lambda _: None
) -> Snapshot | None:
    world.crash = crash
    fence = world.ledger.acquire("main", owner="ada", ttl_s=60, takeover=True)
    row = renamer(world, crash).merge(fence, one, other, into)
    world.crash = lambda _: None
    return row


def merged(state: bytes, given: Sequence[str], into: str) -> bytes:
    """Return a state of the stream in which classes have one name."""
    for old in given:
        state = renamed(state, old, into)
    return state


def windows(run: Run) -> list[list[tuple[str, str]]]:
    return [[(m.event_id, m.label) for m in c.members] for c in run.closings if c.kind == "window"]


@many
@given(log=logs(), stop=st.integers(1, 6))
def test_the_stream_goes_on_as_if_all_labels_had_come_under_the_new_name(log: Log, stop: int) -> None:
    whole, part = drive(log, rules=BETWEEN), drive(log, rules=BETWEEN, restart_at=stop)
    if not part.states:
        return
    state = renamed(part.states[-1], "a", "z")
    assert Intake(STREAM, (), state=state).state() == state
    rest = drive(log, seed=3, state=state, floors=whole.floors, rules=BETWEEN)
    undisturbed = drive(log, seed=3, state=part.states[-1], floors=whole.floors, rules=BETWEEN)
    now = {"a": "z"}
    assert windows(rest) == [[(i, now.get(k, k)) for i, k in w] for w in windows(undisturbed)]
    assert rest.intake.counts == undisturbed.intake.counts
    assert rest.intake.classes == tuple(now.get(k, k) for k in undisturbed.intake.classes)


@many
@given(log=logs(), stop=st.integers(1, 6))
def test_what_was_foretold_bears_the_new_name_too(log: Log, stop: int) -> None:
    for state in drive(log, rules=BETWEEN, restart_at=stop).states:
        before, after = (_forecasts(one) for one in (state, renamed(state, "a", "z")))
        assert after == [
            None if f is None else {{"a": "z"}.get(k, k): p for k, p in f.items()} for f in before
        ]


@many
@given(log=logs(), stop=st.integers(1, 6), into=st.sampled_from("abz"))
def test_the_stream_goes_on_as_if_all_labels_of_both_had_come_under_one_name(
    log: Log, stop: int, into: str
) -> None:
    whole, part = drive(log, rules=BETWEEN), drive(log, rules=BETWEEN, restart_at=stop)
    if not part.states:
        return
    state = merged(part.states[-1], "ab", into)
    assert Intake(STREAM, (), state=state).state() == state
    rest = drive(log, seed=3, state=state, floors=whole.floors, rules=BETWEEN)
    undisturbed = drive(log, seed=3, state=part.states[-1], floors=whole.floors, rules=BETWEEN)
    now = {"a": into, "b": into}
    assert windows(rest) == [[(i, now.get(k, k)) for i, k in w] for w in windows(undisturbed)]
    assert rest.intake.counts == undisturbed.intake.counts
    rows = json.loads(state)["classes"]
    assert list(rest.intake.classes[: len(rows)]) == rows  # each keeps its row, whatever it is called
    fresh = rest.intake.classes[len(rows) :]
    assert len(set(fresh)) == len(fresh)
    assert set(fresh).isdisjoint(rows)


@many
@given(log=logs(), stop=st.integers(1, 6))
def test_what_was_foretold_of_both_adds_up(log: Log, stop: int) -> None:
    for state in drive(log, rules=BETWEEN, restart_at=stop).states:
        before, after = (_forecasts(one) for one in (state, merged(state, "ab", "z")))
        for one, two in zip(before, after, strict=True):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                both = [one[k] for k in "ab" if k in one]
                rest = {k: p for k, p in one.items() if k not in "ab"}
                assert two == rest | ({"z": sum(both)} if both else {})


def _forecasts(state: bytes) -> list[dict[str, float] | None]:
    data = json.loads(state)
    return [row[-1] for row in (*data["store"]["events"], *data["window"])]


@many
@given(log=logs(), stop=st.integers(1, 6))
def test_renamed_to_and_fro_is_as_before(log: Log, stop: int) -> None:
    for state in drive(log, rules=BETWEEN, restart_at=stop).states:
        there = renamed(state, "a", "z")
        back = json.loads(renamed(there, "z", "a"))
        assert back.pop("renamed") == {"z": "a"}
        assert back == json.loads(state)


def test_a_chain_of_names_leads_to_the_last_at_once() -> None:
    names = AS_THEY_CAME.then("a", "b").then("b", "c")
    assert names.present == {"a": "c", "b": "c"}
    assert [names.of(k) for k in ("a", "b", "c", "d")] == ["c", "c", "c", "d"]
    assert names.then("c", "a").present == {"b": "a", "c": "a"}


def test_a_vocabulary_that_knows_the_old_name_lets_the_new_one_pass() -> None:
    rules = replace(STREAM, label_vocabulary=frozenset({"a"}))
    log: Log = {
        ("labels", 0): [
            Label(event_id="e1", label="a", time_ms=1),
            Label(event_id="e2", label="z", time_ms=2),
            Label(event_id="e3", label="q", time_ms=3),
        ]
    }
    state = renamed(Intake(rules, log).state(), "a", "z")
    run = drive(log, rules=rules, state=state)
    assert run.intake.waiting[1] == 2
    assert run.intake.counts.dead_lettered == 1


def test_the_row_keeps_tensors_and_positions_and_says_who_and_why(make: Make) -> None:
    world = make()
    head = world.go(upto(3))
    row = rename(world, "money", "spam")
    assert row is not None
    assert (row.kind, row.parent, row.index) == ("relabelled", head.sha, head.index)
    assert row.labels == tuple({"money": "spam"}.get(k, k) for k in head.labels)
    for name in ("posterior", "spans", "counts", "settings"):
        assert getattr(row, name) == getattr(head, name)
    assert row.report == {"renamed": "money", "to": "spam", "by": "ada@host", "at_ms": 9, "reason": "clearer"}


def test_belief_learns_what_it_would_have_learned(make: Make) -> None:
    world, plain = make(), make()
    world.go(upto(3))
    rename(world, "money", "spam")
    head, other = world.go(), plain.go()
    assert [s.posterior for s in world.ledger.history("main") if s.kind == "learned"] == [
        s.posterior for s in plain.ledger.history("main") if s.kind == "learned"
    ]
    assert set(head.labels) == {"linux", "spam"}
    assert head.report["classes"].keys() == {"linux", "spam"}
    assert head.report["accuracy"] == other.report["accuracy"]  # forecasts bear the new name too
    assert head.counts == other.counts
    assert all(Counts(**row.counts).balance() == 0 for row in world.ledger.history("main"))


@pytest.mark.parametrize("step", STEPS)
def test_dying_anywhere_the_same_call_ends_in_one_row(make: Make, step: str) -> None:
    world, whole = make(), make()
    for one in (world, whole):
        one.go(upto(3))
    rename(whole, "money", "spam")

    def crash(reached: str) -> None:
        if reached == step:
            raise Died

    with pytest.raises(Died):
        rename(world, "money", "spam", crash)
    world.crash = lambda _: None
    rename(world, "money", "spam")
    assert world.shas() == whole.shas()
    world.go()
    whole.go()
    assert world.shas() == whole.shas()


def test_an_open_plan_is_superseded_for_it_stands_on_the_old_head(make: Make) -> None:
    world = make()
    world.go(upto(2))

    def crash(step: str) -> None:
        if step == "after-plan":
            raise Died

    with pytest.raises(Died):
        world.go(seed=1, crash=crash)
    plan = world.ledger.open_plan("main")
    assert plan is not None
    rename(world, "money", "spam")
    closed = world.ledger.plan("main", plan.sha)
    assert closed is not None
    assert closed.reason == "a class was renamed"
    world.go()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nobody", "x", "has no class 'nobody'; it has: "),
        ("money", "linux", "is a class already"),
        ("money", "", "cannot be a label"),
        ("money", "a\0", "cannot be a label"),
        ("money", "m" * 513, "cannot be a label"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make: Make, old: str, new: str, said: str) -> None:
    world = make()
    world.go(upto(2))
    rows = world.shas()
    with pytest.raises(CannotRename, match=said):
        rename(world, old, new)
    assert world.shas() == rows


def test_a_former_name_goes_back_to_its_own_class_and_to_no_other(make: Make) -> None:
    world = make()
    world.go(upto(2))
    rename(world, "money", "spam")
    with pytest.raises(CannotRename, match="'money' is a former name of 'spam'"):
        rename(world, "linux", "money")
    assert rename(world, "spam", "money") is not None
    assert rename(world, "spam", "money") is None


def test_names_along_a_line_are_those_of_its_state(make: Make) -> None:
    world = make()
    world.go(upto(2))
    rename(world, "money", "spam")
    rename(world, "spam", "advertising")
    head = world.go(upto(1))
    said = json.loads(world.blobs.get(head.stream_state))["renamed"]
    assert said == dict(names_along(world.ledger.history("main")).present)
    assert said == {"money": "advertising", "spam": "advertising"}


def test_a_row_that_does_more_under_the_name_of_a_renaming_is_refused(make: Make) -> None:
    world = make()
    head = world.go(upto(2))
    fence = world.ledger.acquire("main", owner="o", ttl_s=60, takeover=True)
    child = replace(
        head, seq=head.seq + 1, kind="relabelled", parent=head.sha, plan=None, spans_before=head.spans
    )
    one, two = head.labels
    for labels in [(one, two), (two, one), (one, one), (one,), (one, two, "c"), ("x", "y")]:
        with pytest.raises(LedgerCorrupt, match="label map"):
            world.ledger.commit(
                fence, replace(child, labels=labels), Circumstance(at_ms=0, host="", code_version="")
            )
    moved = tuple(replace(s, low=s.low + 1) for s in head.spans)
    for spoilt in (
        replace(child, labels=(one, "x"), posterior=world.ledger.history("main")[0].posterior),
        replace(child, labels=(one, "x"), spans=moved),
    ):
        with pytest.raises(LedgerCorrupt):
            world.ledger.commit(fence, spoilt, Circumstance(at_ms=0, host="", code_version=""))
    assert world.ledger.head("main") == head


def three() -> World:
    return World(mails(words=WORDS | SPORT))


def test_the_row_of_a_merger_keeps_tensors_rows_and_positions_and_says_of_whom() -> None:
    world = three()
    head = world.go(upto(3))
    row = merge(world, "linux", "sport", "talk")
    assert row is not None
    assert (row.kind, row.parent, row.index) == ("relabelled", head.sha, head.index)
    assert row.labels == tuple({"linux": "talk", "sport": "talk"}.get(k, k) for k in head.labels)
    for name in ("posterior", "spans", "counts", "settings"):
        assert getattr(row, name) == getattr(head, name)
    said = {"merged": ["linux", "sport"], "to": "talk", "by": "ada@host", "at_ms": 9, "reason": "clearer"}
    assert row.report == said
    last = world.go()
    assert set(last.labels) == {"talk", "money"}
    assert last.labels[: len(head.labels)] == row.labels
    assert last.report["classes"].keys() == {"talk", "money"}
    assert last.report["accuracy"] > 0.9
    assert all(Counts(**one.counts).balance() == 0 for one in world.ledger.history("main"))
    assert set(json.loads(world.blobs.get(last.stream_state))["renamed"].items()) == {
        ("linux", "talk"),
        ("sport", "talk"),
    }


def test_a_merged_class_may_be_renamed_and_merged_again_and_keeps_all_its_rows() -> None:
    world = three()
    world.go(upto(3))
    assert merge(world, "linux", "sport", "linux") is not None
    assert merge(world, "linux", "sport", "linux") is None  # they are that already
    world.go(upto(1))
    row = rename(world, "linux", "sport")  # a former name of its own
    assert row is not None
    assert sorted(row.labels) == ["money", "sport", "sport"]
    row = merge(world, "money", "sport", "all")
    assert row is not None
    assert row.labels == ("all",) * 3
    last = world.go()
    assert last.labels == ("all",) * 3
    assert last.report["classes"].keys() == {"all"}
    names = names_along(world.ledger.history("main"))
    assert json.loads(world.blobs.get(last.stream_state))["renamed"] == dict(names.present)
    assert {names.of(k) for k in ("linux", "money", "sport", "all")} == {"all"}


@pytest.mark.parametrize("step", STEPS)
def test_dying_anywhere_the_same_call_ends_in_one_merger(step: str) -> None:
    world, whole = three(), three()
    for one in (world, whole):
        one.go(upto(3))
    merge(whole, "linux", "sport", "talk")

    def crash(reached: str) -> None:
        if reached == step:
            raise Died

    with pytest.raises(Died):
        merge(world, "linux", "sport", "talk", crash)
    world.crash = lambda _: None
    merge(world, "linux", "sport", "talk")
    assert world.shas() == whole.shas()
    world.go()
    whole.go()
    assert world.shas() == whole.shas()


@pytest.mark.parametrize(
    ("one", "other", "into", "said"),
    [
        ("nobody", "linux", "x", "has no class 'nobody'; it has: "),
        ("linux", "nobody", "linux", "has no class 'nobody'; it has: "),
        ("linux", "linux", "x", "'linux' is one class; name the two"),
        ("linux", "sport", "money", "'money' is a class already; .*two at a time"),
        ("linux", "sport", "", "cannot be a label"),
        ("linux", "sport", "cash", "'cash' is a former name of 'money'"),
    ],
)
def test_a_merger_that_cannot_be_is_refused_in_words(one: str, other: str, into: str, said: str) -> None:
    world = three()
    world.go(upto(2))
    rename(world, "money", "cash")
    rename(world, "cash", "money")
    rows = world.shas()
    with pytest.raises(CannotRename, match=said):
        merge(world, one, other, into)
    assert world.shas() == rows


def test_a_row_that_merges_what_it_does_not_say_is_refused() -> None:
    world = three()
    head = world.go(upto(3))
    assert len(head.labels) == len(once(head.labels)) == 3
    fence = world.ledger.acquire("main", owner="o", ttl_s=60, takeover=True)
    one, two, third = head.labels
    child = replace(
        head, seq=head.seq + 1, kind="relabelled", parent=head.sha, plan=None, spans_before=head.spans
    )
    for labels, said in [
        ((one, one, third), None),
        (("x", "x", third), None),
        ((one, one, third), [one, third]),
        ((third, third, third), [one, two]),
        (("x", "x", "x"), [one, two]),
        (("x", two, third), [one, two]),
        (("x", "y", third), [one, two]),
        ((one, two, third), [one, two]),
    ]:
        report = {} if said is None else {MERGED: said}
        with pytest.raises(LedgerCorrupt, match="label map"):
            world.ledger.commit(
                fence,
                replace(child, labels=labels, report=report),
                Circumstance(at_ms=0, host="", code_version=""),
            )
    assert world.ledger.head("main") == head
