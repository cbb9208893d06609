"""The champion is followed by the log, else by the alias, else it stays: whatever is down."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from posterior.registry import RegistryUnavailable
from posterior.snapshot import LedgerCorrupt, LedgerUnavailable
from priorflow.serving.champions import Wanted, by_folder, keep
from priorflow.serving.desk import Desk
from priorflow.serving.version import Version
from priorflow.serving.watcher import Standing, Watcher
from tests.app.serving.clerk import RULE, Clerk, snapshot
from trainers.abstention import Abstention

NOTHING_KNOWN = Abstention(risk=0.1, alpha=0.05, at=None, events=0, answered=0, wrong=0)
BYTES = {index: f"posterior {index}".encode() for index in range(4)}


def settle(done: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(2_000):
        if done():
            return
        waited.wait(0.005)
    pytest.fail("nothing came of it")


def wanted(index: int) -> Wanted:
    found = snapshot(index, posterior=hashlib.sha256(BYTES[index]).hexdigest())
    return Wanted(snapshot=found, posterior=lambda: BYTES[index], by="decision log", name=str(index))


class Town:
    """Places whose answers a test sets; an exception is raised."""

    def __init__(self, folder: Path) -> None:
        self.log: Wanted | Exception | None = None
        self.alias: Wanted | Exception | None = None
        self.folder = folder
        self.fails = False
        self.made = 0

    def by_decision(self) -> Wanted | None:
        return self._say(self.log)

    def by_alias(self) -> Wanted | None:
        found = self._say(self.alias)
        return None if found is None else replace(found, by="alias")

    def last_good(self) -> Wanted | None:
        return by_folder(self.folder, "main", "5" * 64)

    def ready(self, wanted: Wanted, posterior: bytes) -> Version:
        assert hashlib.sha256(posterior).hexdigest() == wanted.snapshot.posterior
        self.made += 1
        clerk = Clerk(str(wanted.snapshot.index), fails=self.fails)
        known = wanted.history is not None
        rule = RULE if known or wanted.by != "alias" else NOTHING_KNOWN
        return Version(
            snapshot=wanted.snapshot,
            answerer=clerk,
            rule=rule,
            name=wanted.name,
            settled=known or rule is RULE,
        )

    def keep(self, wanted: Wanted, posterior: bytes, version: Version) -> None:
        keep(self.folder, wanted, posterior, version.rule)

    def _say(self, said: Wanted | Exception | None) -> Wanted | None:
        if isinstance(said, Exception):
            raise said
        return said


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path / "kept")


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(most=8, patience_s=60)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def told() -> list[Standing]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watcher(desk: Desk, town: Town, told: list[Standing], clock: Clock) -> Watcher:
    return Watcher(desk, town, poll_s=0.01, tell=told.append, now=clock)


def answering(desk: Desk) -> int | None:
    return None if desk.version is None else desk.version.snapshot.index


def test_the_log_is_followed_and_looked_at_again_costs_nothing(
    watcher: Watcher, desk: Desk, town: Town
) -> None:
    town.log = wanted(1)
    watcher.look()
    watcher.look()
    assert (answering(desk), town.made) == (1, 1)
    assert watcher.standing == replace(watcher.standing, by="decision log", trouble=None)
    town.log = wanted(2)
    watcher.look()
    assert answering(desk) == 2
    town.log = wanted(1)  # rolled back
    watcher.look()
    assert answering(desk) == 1


def test_before_anybody_was_promoted_nobody_answers(
    watcher: Watcher, desk: Desk, told: list[Standing]
) -> None:
    watcher.look()
    assert desk.version is None
    assert told[-1].trouble == "no snapshot was promoted yet"


def test_the_alias_where_the_log_says_nothing(watcher: Watcher, desk: Desk, town: Town) -> None:
    town.alias = replace(wanted(1), history=list)
    watcher.look()
    assert (answering(desk), watcher.standing.by, watcher.standing.trouble) == (1, "alias", None)


@pytest.mark.parametrize("broken", [LedgerUnavailable("gone"), LedgerCorrupt("line 3")])
def test_the_last_good_version_stays_while_the_log_is_away_and_that_is_said(
    watcher: Watcher, desk: Desk, town: Town, told: list[Standing], clock: Clock, broken: Exception
) -> None:
    town.log = wanted(1)
    watcher.look()
    clock.now, town.log, town.alias = 5.0, broken, RegistryUnavailable("gone too")
    watcher.look()
    clock.now = 9.0
    watcher.look()
    assert answering(desk) == 1
    assert "cannot be read" in (told[-1].trouble or "")
    assert watcher.standing.since == 5.0
    town.log = wanted(1)
    watcher.look()
    assert watcher.standing.trouble is None
    assert len(told) == 3


def test_an_alias_that_lags_behind_a_log_that_was_read_is_not_followed_while_it_is_away(
    watcher: Watcher, desk: Desk, town: Town
) -> None:
    """A rollback whose alias could not be moved stands, though the alias still names who was rolled back."""
    town.alias = town.log = wanted(2)
    watcher.look()
    town.log = wanted(1)
    watcher.look()
    town.log = LedgerUnavailable("gone")
    watcher.look()
    assert (answering(desk), watcher.standing.by) == (1, "decision log")
    assert "cannot be read" in (watcher.standing.trouble or "")
    town.log = None  # another ledger, in which nobody was promoted
    watcher.look()
    assert (answering(desk), watcher.standing.by) == (2, "alias")


def test_a_threshold_that_could_not_be_chosen_is_once_the_ledger_is_back(
    watcher: Watcher, desk: Desk, town: Town
) -> None:
    town.log, town.alias = LedgerUnavailable("gone"), wanted(1)
    for _ in range(2):
        watcher.look()
    assert (answering(desk), town.made) == (1, 1)
    assert "cannot be read" in (watcher.standing.trouble or "")
    assert "every answer is withheld" in (watcher.standing.trouble or "")
    town.log = replace(wanted(1), history=list)
    for _ in range(2):
        watcher.look()
    assert desk.version is not None
    assert (desk.version.rule, town.made, watcher.standing.trouble) == (RULE, 2, None)


def test_a_server_starts_with_the_last_good_version_while_all_is_away(
    watcher: Watcher, desk: Desk, town: Town
) -> None:
    keep(town.folder, wanted(3), BYTES[3], RULE)
    town.log, town.alias = LedgerUnavailable("gone"), RegistryUnavailable("gone")
    watcher.look()
    assert (answering(desk), watcher.standing.by) == (3, "last good")
    assert "cannot be read" in (watcher.standing.trouble or "")
    town.log = wanted(2)
    watcher.look()
    assert (answering(desk), watcher.standing.by) == (2, "decision log")


@pytest.mark.parametrize("what", ["posterior.safetensors", "manifest.json"])
def test_what_was_altered_on_disk_does_not_answer(
    watcher: Watcher, desk: Desk, town: Town, what: str
) -> None:
    keep(town.folder, wanted(3), BYTES[3], RULE)
    file = town.folder / what
    file.write_bytes(file.read_bytes().replace(b"3", b"4"))
    town.log = LedgerUnavailable("gone")
    watcher.look()
    assert desk.version is None
    assert watcher.standing.trouble is not None


def test_another_chain_s_last_good_version_is_not_ours(town: Town) -> None:
    keep(town.folder, wanted(3), BYTES[3], None)
    assert by_folder(town.folder, "main", "5" * 64) is not None
    assert by_folder(town.folder, "other", "5" * 64) is None
    assert by_folder(town.folder, "main", "6" * 64) is None


def test_one_that_does_not_answer_leaves_the_old_one_and_is_not_tried_at_every_look(
    watcher: Watcher, desk: Desk, town: Town, clock: Clock
) -> None:
    town.log = wanted(1)
    watcher.look()
    town.log, town.fails = wanted(2), True
    for _ in range(5):
        watcher.look()
    assert (answering(desk), town.made) == (1, 2)
    assert "cannot take over" in (watcher.standing.trouble or "")
    clock.now, town.fails = 31.0, False
    watcher.look()
    assert answering(desk) == 2
    assert watcher.standing.trouble is None


def test_bytes_that_are_not_the_posterior_do_not_answer(watcher: Watcher, desk: Desk, town: Town) -> None:
    town.log = replace(wanted(1), posterior=lambda: b"other bytes")
    watcher.look()
    assert desk.version is None
    assert "sha256" in (watcher.standing.trouble or "")


def test_a_number_that_comes_later_is_told(watcher: Watcher, desk: Desk, town: Town) -> None:
    """A champion answers before the registry has it; its number is in answers once it is there."""
    town.log = replace(wanted(1), name=None)
    watcher.look()
    town.log = wanted(1)
    watcher.look()
    assert desk.version is not None
    assert desk.version.name == "1"


def test_it_looks_by_itself(watcher: Watcher, desk: Desk, town: Town) -> None:
    watcher.start()
    town.log = wanted(1)
    while desk.version is None:
        pass
    watcher.stop()
    assert answering(desk) == 1


def test_nothing_stops_it_from_looking(
    watcher: Watcher, desk: Desk, town: Town, told: list[Standing]
) -> None:
    """A fault of ours in one look is told, and the next look is made."""
    watcher.start()
    town.log = ZeroDivisionError("ours")
    while not any("ZeroDivisionError" in (standing.trouble or "") for standing in told):
        pass
    town.log = wanted(1)
    while desk.version is None:
        pass
    watcher.stop()


def test_it_goes_on_looking_though_nobody_can_be_told(desk: Desk, town: Town) -> None:
    """Also from a first look that failed for a fault of ours."""

    def gone(standing: Standing) -> None:
        raise BrokenPipeError(str(standing))

    town.log = ZeroDivisionError("ours")
    watcher = Watcher(desk, town, poll_s=0.01, tell=gone)
    watcher.start()
    assert "ZeroDivisionError" in (watcher.standing.trouble or "")
    town.log = LedgerUnavailable("gone")
    settle(lambda: "cannot be read" in (watcher.standing.trouble or ""))
    town.log = wanted(1)
    settle(lambda: answering(desk) == 1)
    watcher.stop()


@pytest.mark.parametrize("what", ["serving.json", "manifest.json"])
def test_a_folder_in_pieces_is_told(watcher: Watcher, town: Town, what: str) -> None:
    keep(town.folder, wanted(3), BYTES[3], RULE)
    (town.folder / what).write_text("{", encoding="utf-8")
    town.log = LedgerUnavailable("gone")
    watcher.look()
    assert "remove it" in (watcher.standing.trouble or "") or "altered" in (watcher.standing.trouble or "")


def test_one_that_cannot_be_kept_answers_and_that_is_said(
    watcher: Watcher, desk: Desk, town: Town, told: list[Standing]
) -> None:
    town.folder.write_text("a file where a folder should be", encoding="utf-8")
    town.log = wanted(1)
    watcher.look()
    assert answering(desk) == 1
    assert "cannot be kept" in (told[-1].trouble or "")
