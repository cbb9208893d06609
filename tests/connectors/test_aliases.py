"""Aliases and the decision log agree in the end, whoever died, decided or moved one meanwhile."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.aliases import Aliases, Settled, wanted_aliases
from connectors.blobs import MemoryBlobs, open_blobs
from connectors.crash import live
from connectors.decision_log import champion, fallback, previous
from connectors.lease import _started, this_owner
from connectors.ledger import open_ledger
from connectors.memory_ledger import MemoryLedger
from connectors.memory_registry import MemoryRegistry
from connectors.mlflow_registry import MlflowRegistry
from posterior.registry import Registry, RegistryRefused, RegistryUnavailable
from posterior.snapshot import IN_CHARGE, Action, Blobs, Decision, Ledger, Snapshot
from tests.connectors.chain_builder import CIRCUMSTANCE, Writer


class Died(Exception):
    pass


@dataclass
class Place:
    """A ledger, a registry, and three published snapshots: versions 1, 2 and 3."""

    ledger: Ledger
    blobs: Blobs
    registry: Registry
    writer: Writer
    rows: list[Snapshot]

    @classmethod
    def built(cls, ledger: Ledger, blobs: Blobs, registry: Registry) -> Place:
        writer = Writer.on_new_chain(ledger, blobs)
        made = cls(ledger, blobs, registry, writer, [])
        for _ in range(3):
            made.rows.append(writer.learn(publish=("mlflow",)))
            made.publish(made.rows[-1])
        return made

    def publish(self, row: Snapshot) -> str:
        version = self.registry.publish(row, CIRCUMSTANCE, self.blobs.get(row.posterior))
        self.ledger.published(row.sha, "mlflow", version)
        return version

    def decide(self, action: Action, row: Snapshot) -> Decision:
        return self.ledger.decide("main", at_ms=1, actor="ada", action=action, snapshot=row.sha, evidence={})

    def settle(self, crash: Callable[[str], None] = live, **other: Any) -> Settled:
        parts = {"ledger": self.ledger, "registry": self.registry, **other}
        return Aliases(blobs=self.blobs, chain="main", crash=crash, **parts).settle(at_ms=2)

    def log(self) -> list[tuple[str, str, int]]:
        """Return actor, action and version of every line."""
        shas = [row.sha for row in self.rows]
        return [(d.actor, d.action, shas.index(d.snapshot) + 1) for d in self.ledger.decisions("main")]

    def aliases(self) -> Mapping[str, str]:
        return self.registry.aliases()


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    blobs: Blobs = MemoryBlobs() if request.param == "memory" else open_blobs(tmp_path / "blobs")
    ledger: Ledger = MemoryLedger(blobs)
    if request.param == "sqlite":
        ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    yield Place.built(ledger, blobs, MemoryRegistry())
    ledger.close()


def test_a_new_ledger_takes_nobody_s_alias_away(place: Place) -> None:
    other = place.publish(Writer.on_new_chain(place.ledger, place.blobs, "other").learn())
    for registry in (place.registry, Altered(place.registry, other)):
        place.registry.assert_aliases({"champion": other})
        assert place.settle(registry=registry).heard is None
        assert place.aliases() == {"champion": other}
        assert place.log() == []


def test_an_alias_moved_by_hand_before_any_promotion_is_adopted(place: Place) -> None:
    place.registry.assert_aliases({"champion": "2"})
    for _ in range(2):
        place.settle()
        assert place.aliases() == {"champion": "2"}
        assert place.log() == [("alias", "promote", 2)]
    place.registry.assert_aliases({"champion": "1"})
    place.settle()
    assert place.aliases() == {"champion": "1", "previous": "2"}
    assert place.log() == [("alias", "promote", 2), ("alias", "promote", 1)]


def test_one_that_does_not_verify_is_taken_away_while_nobody_is_in_charge(place: Place) -> None:
    """The line comes first; whoever dies before it is gone has it taken away by the next."""

    def away() -> None:
        message = "no route"
        raise RegistryUnavailable(message)

    altered = Altered(place.registry, "2")
    place.registry.assert_aliases({"champion": "2"})
    with pytest.raises(RegistryUnavailable):
        place.settle(registry=Meanwhile(altered, "assert_aliases", away))
    for _ in range(2):
        place.settle(registry=altered)
        assert place.aliases() == {}
        assert place.log() == [("alias", "refuse", 2)]


class Altered:
    """A registry in which the files of one version are no longer what was published."""

    def __init__(self, inner: Registry, version: str) -> None:
        self._inner, self._version = inner, version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def fetch(self, version: str) -> tuple[Snapshot, bytes]:
        if version == self._version:
            message = "it was altered"
            raise RegistryRefused(message)
        return self._inner.fetch(version)


def die_at(step: str) -> Callable[[str], None]:
    def crash(here: str) -> None:
        if here == step:
            raise Died

    return crash


@pytest.mark.parametrize("step", ["before-alias", "before-noted"])
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_dying_between_record_and_alias_is_no_hand_on_it(place: Place, step: str, action: Action) -> None:
    place.decide("promote", place.rows[0])
    place.decide("promote", place.rows[2])
    place.settle()
    place.decide(action, place.rows[0])
    with pytest.raises(Died):
        place.settle(die_at(step))
    before = place.log()
    for _ in range(2):
        assert place.settle().heard is None
        assert place.aliases() == {"champion": "1", "previous": "3"}
    assert place.log() == before


def test_a_champion_moved_by_hand_is_adopted_and_the_log_says_so(place: Place) -> None:
    place.decide("promote", place.rows[0])
    place.settle()
    place.registry.assert_aliases({"champion": "3"})
    heard = place.settle().heard
    assert heard is not None
    assert "by hand to version 3; adopted" in heard.evidence["reason"]
    assert place.aliases() == {"champion": "3", "previous": "1"}
    place.registry.assert_aliases({"champion": "1"})  # a person rolls back
    place.settle()
    assert place.aliases() == {"champion": "1", "previous": "3"}
    assert place.settle().heard is None
    assert place.log() == [("ada", "promote", 1), ("alias", "promote", 3), ("alias", "rollback", 1)]


def test_what_is_not_of_this_chain_is_put_back_and_said_once(place: Place) -> None:
    place.decide("promote", place.rows[0])
    place.settle()
    other = Writer.on_new_chain(place.ledger, place.blobs, "other").learn()
    foreign = place.publish(other)
    for _ in range(2):
        place.registry.assert_aliases({"champion": foreign})
        place.settle()
        assert place.aliases()["champion"] == "1"
    assert place.log() == [("ada", "promote", 1), ("alias", "refuse", 1)]
    assert champion(place.ledger.decisions("main")) == place.rows[0].sha


def test_an_alias_that_was_deleted_or_is_nobody_s_decision_is_put_back(place: Place) -> None:
    place.decide("promote", place.rows[0])
    place.decide("promote", place.rows[1])
    place.settle()
    place.registry.assert_aliases({"champion": None, "previous": None})
    place.settle()
    assert place.aliases() == {"champion": "2", "previous": "1"}
    place.registry.assert_aliases({"previous": "3"})
    assert place.settle().heard is None
    assert place.aliases() == {"champion": "2", "previous": "1"}
    assert [line[:2] for line in place.log()][2:] == [("alias", "refuse")]


def test_a_champion_that_was_thinned_out_is_published(place: Place) -> None:
    unpublished = place.writer.learn()
    place.rows.append(unpublished)
    place.decide("promote", unpublished)
    place.settle()
    assert place.aliases() == {"champion": "4"}
    assert place.ledger.reference(unpublished.sha, "mlflow") == "4"


class Meanwhile:
    """A ledger or registry in which something else happens before the n-th call of a method."""

    def __init__(self, inner: Any, method: str, happens: Callable[[], object], at: int = 1) -> None:
        self._inner, self._method, self._happens, self._left = inner, method, happens, at

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._left -= 1
            if self._left == 0:
                self._happens()
        return getattr(self._inner, name)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("method", ["aliases", "assert_aliases"])
def test_a_decision_while_aliases_are_settled_is_what_they_say_in_the_end(
    place: Place, method: str, at: int
) -> None:
    place.decide("promote", place.rows[0])

    def promoted_beside() -> None:
        place.decide("promote", place.rows[2])
        place.settle()

    place.settle(registry=Meanwhile(place.registry, method, promoted_beside, at))
    place.settle()
    expected = [("ada", "promote", 1), ("ada", "promote", 3)]
    if place.log() != expected[:1]:  # it happened
        assert place.log() == expected
        assert place.aliases() == {"champion": "3", "previous": "1"}


@pytest.mark.parametrize("then", ["dies", "is overtaken again"])
def test_a_settler_that_comes_late_decides_nothing(place: Place, then: str) -> None:
    """It has read the log up to one line, and points the alias after the next one was carried out."""
    place.decide("promote", place.rows[0])
    place.settle()
    place.decide("promote", place.rows[1])

    def overtaken() -> None:
        place.decide("promote", place.rows[2])
        place.settle()

    def after(step: str) -> None:
        if step == "before-noted":
            assert place.aliases()["champion"] == "2"
            if then == "dies":
                raise Died
            place.settle()

    with suppress(Died):
        place.settle(after, registry=Meanwhile(place.registry, "assert_aliases", overtaken))
    for _ in range(2):
        place.settle()
        assert place.aliases() == {"champion": "3", "previous": "2"}
    ours = [("ada", "promote", row) for row in (1, 2, 3)]
    assert place.log() == [*ours, ("alias", "refuse", 3)]
    assert "carried out line 1 may have put it late" in place.ledger.decisions("main")[-1].evidence["reason"]


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_dead_settler_s_late_move_is_put_back_once_and_then_a_hand_is_heard(
    place: Place, overtaken: bool
) -> None:
    place.decide("promote", place.rows[0])
    place.settle()
    place.decide("promote", place.rows[1])

    def promoted_beside() -> None:
        place.decide("promote", place.rows[2])
        place.settle()

    with somebody() as name, pytest.raises(Died):
        place.settle(
            die_at("before-noted"),
            registry=Meanwhile(place.registry, "assert_aliases", promoted_beside, at=1 if overtaken else 2),
            by=name,
        )
    place.settle()
    if not overtaken:
        promoted_beside()
    assert place.aliases()["champion"] == "3"
    place.registry.assert_aliases({"champion": "2"})
    place.settle()
    assert place.aliases() == {"champion": "2", "previous": "3"}
    assert place.log()[-1] == ("alias", "rollback", 2)


def test_who_moves_late_while_another_looks_at_a_hand_s_work_is_not_taken_for_it(place: Place) -> None:
    """A settler asks and moves between the look at who asked and the look at where the alias is."""
    asleep, awake, moved = threading.Event(), threading.Event(), threading.Event()

    def slow(step: str) -> None:
        if step == "before-alias":
            asleep.set()
            assert awake.wait(10)
        if step == "before-noted":
            moved.set()
            raise Died

    def wake() -> None:
        awake.set()
        assert moved.wait(10)

    place.decide("promote", place.rows[0])
    place.settle()
    place.decide("promote", place.rows[1])
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(place.settle, slow)
        assert asleep.wait(10)
        place.decide("promote", place.rows[2])
        place.settle()
        place.registry.assert_aliases({"champion": "1"})
        place.settle(registry=Meanwhile(place.registry, "aliases", wake, at=2))
        with pytest.raises(Died):
            late.result()
    assert place.aliases() == {"champion": "3", "previous": "2"}
    assert [line[:2] for line in place.log()] == [("ada", "promote")] * 3 + [("alias", "refuse")]


@contextmanager
def somebody() -> Iterator[str]:
    """Give the name of an asker that is dead afterwards."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        host, _, where, _ = this_owner().split("/")
        yield f"{host}/{process.pid}/{where}/{_started(process.pid)} somebody"
    finally:
        process.kill()
        process.communicate()


class Stepped:
    """A ledger or registry that has something done before each call."""

    def __init__(self, inner: Any, step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def __getattr__(self, name: str) -> Any:
        self._step()
        return getattr(self._inner, name)


# What happens: a promotion of one of three, or a settler, at whose steps something happens, and who may die.
Happens = list[Any]
STEPS = st.integers(0, 30)
PROMOTED = st.integers(0, 2)
UNDISTURBED: st.SearchStrategy[Any] = st.tuples(st.builds(dict), st.none() | STEPS)


def disturbed(by: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = st.lists(PROMOTED | by, min_size=1, max_size=3)
    return st.tuples(st.dictionaries(STEPS, inner, min_size=1, max_size=2), st.none() | STEPS)


HAPPENS = st.lists(PROMOTED | disturbed(UNDISTURBED | disturbed(UNDISTURBED)), max_size=5)


def let(place: Place, happens: Happens) -> None:
    for one in happens:
        if isinstance(one, int):
            place.decide("promote", place.rows[one])
            continue
        step = partial(meanwhile, place, itertools.count(), *one)
        with suppress(Died):
            place.settle(ledger=Stepped(place.ledger, step), registry=Stepped(place.registry, step))


def meanwhile(place: Place, steps: Iterator[int], happens: Mapping[int, Happens], dies: int | None) -> None:
    at = next(steps)
    let(place, happens.get(at, []))
    if at == dies:
        raise Died


@given(HAPPENS)
@settings(max_examples=300)
def test_whoever_sleeps_dies_and_overtakes_whom_nothing_is_decided_that_nobody_decided(
    happens: Happens,
) -> None:
    blobs = MemoryBlobs()
    place = Place.built(MemoryLedger(blobs), blobs, MemoryRegistry())
    let(place, [0, ({}, None), *happens])
    place.settle()
    log = place.ledger.decisions("main")
    assert not [line for line in log if line.actor == "alias" and line.action in IN_CHARGE]
    wanted = wanted_aliases(place.ledger, "main", "mlflow")
    assert place.aliases() == {alias: version for alias, version in wanted.items() if version is not None}


def test_a_registry_that_is_away_changes_nothing(place: Place) -> None:
    def away() -> None:
        message = "no route"
        raise RegistryUnavailable(message)

    place.decide("promote", place.rows[0])
    with pytest.raises(RegistryUnavailable):
        place.settle(registry=Meanwhile(place.registry, "assert_aliases", away))
    place.settle()
    assert place.aliases() == {"champion": "1"}


def test_a_rollback_goes_one_back_each_time() -> None:
    blobs = MemoryBlobs()
    place = Place.built(MemoryLedger(blobs), blobs, MemoryRegistry())
    for row in place.rows:
        place.decide("promote", row)
    gone = []
    while (sha := fallback(place.ledger.decisions("main"))) is not None:
        gone.append(sha)
        place.decide("rollback", next(row for row in place.rows if row.sha == sha))
    assert gone == [place.rows[1].sha, place.rows[0].sha]
    place.decide("rollback", place.rows[0])  # the champion again: it took over from nobody new
    assert previous(place.ledger.decisions("main")) == place.rows[1].sha


@pytest.mark.mlflow
@pytest.mark.slow
def test_on_a_real_mlflow_record_alias_and_hand_agree(tmp_path: Path) -> None:
    """Died between record and alias; moved by hand to what is ours, and to what was altered."""
    blobs = open_blobs(tmp_path / "blobs")
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    registry = MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db", "router")
    place = Place.built(ledger, blobs, registry)
    place.decide("promote", place.rows[0])
    for step in ("before-alias", "before-noted"):
        with pytest.raises(Died):
            place.settle(die_at(step))
    assert place.settle().heard is None
    assert place.aliases() == {"champion": "1"}
    registry.assert_aliases({"champion": "2"})
    place.settle()
    assert place.aliases() == {"champion": "2", "previous": "1"}
    model = registry._client.get_model_version("router", "3").tags["model_id"]
    where = Path(registry._location(model).removeprefix("file://"))
    (where / "posterior.safetensors").write_bytes(b"altered")
    registry.assert_aliases({"champion": "3"})
    heard = place.settle().heard
    assert heard is not None
    assert "does not verify" in heard.evidence["reason"]
    assert place.aliases() == {"champion": "2", "previous": "1"}
    assert place.log() == [("ada", "promote", 1), ("alias", "promote", 2), ("alias", "refuse", 2)]
    registry.close()
    ledger.close()
