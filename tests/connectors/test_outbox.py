"""The publisher: everything arrives, once, whatever fails; the run is never in its way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connectors.aliases import wanted_aliases
from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from connectors.memory_registry import MemoryRegistry
from connectors.mlflow_registry import MlflowRegistry
from connectors.outbox import Publisher, newest_published
from connectors.rounds import Pace
from posterior.registry import Alias, RegistryRefused, RegistryUnavailable
from posterior.snapshot import Action, Circumstance, Snapshot
from tests.connectors.chain_builder import Writer

QUICK = Pace(idle_s=30, first_wait_s=0.001, longest_wait_s=0.01)
PATIENT_S = 20.0


class Died(Exception):
    pass


@dataclass
class Weather:
    """A registry between us and MemoryRegistry's: down for so many calls, refusing some shas."""

    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    down_for: int = 0
    refused: set[str] = field(default_factory=set)
    calls: int = 0

    def publish(self, snapshot: Snapshot, circumstance: Circumstance, posterior: bytes) -> str:
        self.pass_through()
        if snapshot.sha in self.refused:
            message = "not this one"
            raise RegistryRefused(message)
        return self.registry.publish(snapshot, circumstance, posterior)

    def version_of(self, sha: str) -> str | None:
        return self.registry.version_of(sha)

    def fetch(self, version: str) -> tuple[Snapshot, bytes]:
        return self.registry.fetch(version)

    def assert_aliases(self, aliases: Mapping[Alias, str | None]) -> None:
        self.pass_through()
        self.registry.assert_aliases(aliases)

    def aliases(self) -> Mapping[str, str]:
        return self.registry.aliases()

    def sweep(self, before_ms: int) -> int:
        self.pass_through()
        return self.registry.sweep(before_ms)

    def close(self) -> None:
        self.registry.close()

    def pass_through(self) -> None:
        self.calls += 1
        if self.down_for > 0:
            self.down_for -= 1
            message = "no route to the registry"
            raise RegistryUnavailable(message)


@dataclass
class House:
    """A ledger, a registry, and publishers that are stopped at the end."""

    blobs: MemoryBlobs
    ledger: MemoryLedger
    writer: Writer
    weather: Weather = field(default_factory=Weather)
    publishers: list[Publisher] = field(default_factory=list)
    told: list[str | None] = field(default_factory=list)

    def publisher(self, crash: Callable[[str], None] = lambda _: None) -> Publisher:
        made = Publisher(
            self.ledger,
            self.blobs,
            self.weather,
            chain="main",
            pace=QUICK,
            tell=self.told.append,
            crash=crash,
        )
        self.publishers.append(made)
        return made

    def learn(self, count: int = 1) -> list[Snapshot]:
        return [self.writer.learn(publish=("mlflow",)) for _ in range(count)]

    def references(self, rows: list[Snapshot]) -> list[str | None]:
        return [self.ledger.reference(row.sha, "mlflow") for row in rows]

    def decide(self, action: Action, row: Snapshot) -> None:
        self.ledger.decide("main", at_ms=1, actor="gate", action=action, snapshot=row.sha, evidence={})


@pytest.fixture
def house() -> Iterator[House]:
    blobs = MemoryBlobs()
    ledger = MemoryLedger(blobs)
    made = House(blobs, ledger, Writer.on_new_chain(ledger, blobs))
    yield made
    for publisher in made.publishers:
        assert publisher.stop(PATIENT_S)


def test_what_a_predecessor_left_is_published_in_order(house: House) -> None:
    rows = house.learn(3)
    publisher = house.publisher()
    publisher.start()
    assert publisher.flush(PATIENT_S)
    assert house.references(rows) == ["1", "2", "3"]
    assert house.weather.aliases() == {"candidate": "3"}
    assert publisher.standing().published == 3
    assert publisher.standing().backlog == 0
    assert publisher.standing().error is None


def test_a_wake_is_enough(house: House) -> None:
    published = threading.Event()

    def notice(step: str) -> None:
        if step == "before-published":
            published.set()

    publisher = house.publisher(notice)
    publisher.start()
    assert publisher.flush(PATIENT_S)
    house.learn()
    assert not published.is_set()
    publisher.wake()
    assert published.wait(PATIENT_S)


def test_an_outage_makes_a_backlog_and_then_none(house: House) -> None:
    house.weather.down_for = 5
    publisher = house.publisher()
    publisher.start()
    rows = house.learn(2)
    assert publisher.flush(PATIENT_S)
    assert house.references(rows) == ["1", "2"]
    assert house.weather.down_for == 0
    assert publisher.standing().failures == 0
    assert house.told == ["no route to the registry", None]  # once each, however many attempts failed


def test_an_outage_is_told_and_does_not_hold_the_flush_for_ever(house: House) -> None:
    house.weather.down_for = 10**9
    publisher = house.publisher()
    publisher.start()
    rows = house.learn(2)
    assert not publisher.flush(0.2)
    standing = publisher.standing()
    assert standing.backlog == 2
    assert standing.failures > 1
    assert standing.error == "no route to the registry"
    house.weather.down_for = 0
    assert publisher.flush(PATIENT_S)
    assert house.references(rows) == ["1", "2"]


def test_commits_do_not_hurry_a_registry_that_is_down(house: House) -> None:
    house.weather.down_for = 10**9
    slow = Pace(idle_s=30, first_wait_s=30, longest_wait_s=30)
    publisher = Publisher(house.ledger, house.blobs, house.weather, chain="main", pace=slow)
    house.publishers.append(publisher)
    publisher.start()
    assert not publisher.flush(0.2)
    tried = house.weather.calls
    for _ in range(20):
        house.learn()
        publisher.wake()
    assert house.weather.calls == tried
    house.weather.down_for = 0
    assert publisher.flush(PATIENT_S)  # but asking for a flush does


def test_one_bad_snapshot_does_not_stop_the_others(house: House) -> None:
    rows = house.learn(4)
    house.weather.refused.add(rows[1].sha)
    house.blobs.stored[rows[2].posterior] = b"damaged"
    publisher = house.publisher()
    publisher.start()
    assert not publisher.flush(PATIENT_S)
    assert house.references(rows) == ["1", None, None, "2"]
    left = {row.sha: row.error for row in house.ledger.backlog("mlflow")}
    assert left[rows[1].sha] == "not this one"
    assert "damaged" in str(left[rows[2].sha])
    assert publisher.standing().backlog == 2
    house.weather.refused.clear()
    house.blobs.put(f"posterior {rows[2].seq} of main".encode())
    assert publisher.flush(PATIENT_S)
    assert house.references(rows) == ["1", "3", "4", "2"]
    assert publisher.standing().error is None
    assert house.weather.aliases()["candidate"] == "2"  # the newest snapshot, not the last published


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("step", ["before-publish", "before-published"])
def test_dying_between_steps_publishes_once(house: House, step: str) -> None:
    rows = house.learn(2)

    def crash(here: str) -> None:
        if here == step:
            raise Died

    first = house.publisher(crash)
    first.start()
    assert not first.flush(PATIENT_S)
    assert "Died" in str(first.standing().error)
    second = house.publisher()
    second.start()
    assert second.flush(PATIENT_S)
    assert house.references(rows) == ["1", "2"]
    assert house.weather.registry.fetch("2")[0] == rows[1]


def test_aliases_follow_the_log_and_return_when_moved(house: House) -> None:
    rows = house.learn(3)
    publisher = house.publisher()
    publisher.start()
    assert publisher.flush(PATIENT_S)
    house.decide("promote", rows[0])
    house.decide("promote", rows[2])
    house.decide("refuse", rows[1])
    assert publisher.flush(PATIENT_S)
    wanted = {"candidate": "3", "champion": "3", "previous": "1"}
    assert house.weather.aliases() == wanted
    house.weather.registry.assert_aliases({"candidate": "1", "previous": None})
    assert publisher.flush(PATIENT_S)
    assert house.weather.aliases() == wanted
    house.decide("rollback", rows[0])
    assert publisher.flush(PATIENT_S)
    assert house.weather.aliases() == {"candidate": "3", "champion": "1", "previous": "3"}


def test_a_new_ledger_takes_nobodys_champion_away(house: House) -> None:
    house.learn()
    publisher = house.publisher()
    publisher.start()
    assert publisher.flush(PATIENT_S)
    house.weather.registry.assert_aliases({"champion": "1"})
    assert publisher.flush(PATIENT_S)
    assert house.weather.aliases() == {"candidate": "1", "champion": "1"}


def test_a_champion_waits_for_its_version(house: House) -> None:
    (row,) = house.learn()
    house.decide("promote", row)
    assert wanted_aliases(house.ledger, "main", "mlflow") == {}
    assert newest_published(house.ledger, "main", "mlflow") is None
    publisher = house.publisher()
    publisher.start()
    assert publisher.flush(PATIENT_S)
    assert house.weather.aliases() == {"candidate": "1", "champion": "1"}


def test_stopped_before_started_is_no_trouble(house: House) -> None:
    publisher = house.publisher()
    assert publisher.stop()
    assert not publisher.flush(0)


@dataclass
class Server:
    """A real MLflow server that can be taken down and brought back."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        files = ["--artifacts-destination", str(self.folder / "files")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--workers", "1", *store, *files],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def down(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = Server(tmp_path, free.getsockname()[1])
    yield made
    made.down()


@pytest.mark.mlflow
def test_a_real_server_down_then_up_then_down_then_up(house: House, server: Server) -> None:
    registry = MlflowRegistry(server.uri, "mail-router")
    pace = Pace(idle_s=30, first_wait_s=0.2, longest_wait_s=0.5)
    publisher = Publisher(house.ledger, house.blobs, registry, chain="main", pace=pace)
    house.publishers.append(publisher)
    first = house.learn(2)
    publisher.start()  # nobody is listening yet
    assert not publisher.flush(0.5)
    server.up()
    assert publisher.flush(60)
    server.down()
    second = house.learn(2)
    house.decide("promote", second[0])
    assert not publisher.flush(0.5)
    assert publisher.standing().backlog == 2
    assert "127.0.0.1" in str(publisher.standing().error)
    server.up()
    assert publisher.flush(60)
    assert house.references([*first, *second]) == ["1", "2", "3", "4"]
    assert registry.aliases() == {"candidate": "4", "champion": "3"}
    assert registry.fetch("3") == (second[0], house.blobs.get(second[0].posterior))
    registry.close()
