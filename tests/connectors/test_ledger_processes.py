"""The ledger between real processes: killed, frozen, racing, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connectors.blobs import open_blobs
from connectors.lease import is_gone, this_owner
from connectors.ledger import SqlLedger, open_ledger
from connectors.memory_ledger import MemoryLedger
from posterior.snapshot import LeaseHeld, LedgerUnavailable
from tests.connectors import real_postgres
from tests.connectors.chain_builder import Writer

pytestmark = pytest.mark.slow  # each case starts two or more processes

ROWS = 4
STEPS = [
    "before-blob-write",
    "before-blob-rename",
    "after-blob-rename",
    "before-plan",
    "after-plan",
    "before-ledger-commit",
    "in-ledger-commit",
    "after-ledger-commit",
]
KILLS = [
    *(("sqlite", step) for step in STEPS),
    *(
        pytest.param("postgresql", step, marks=pytest.mark.postgres)
        for step in ("after-plan", "in-ledger-commit")
    ),
]


@dataclass
class Place:
    """Where a ledger lies, and the processes that work on it."""

    url: str
    blobs: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.connectors.ledger_process"]
        process = subprocess.Popen(
            [*command, self.url, str(self.blobs), str(ROWS), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *options: str) -> tuple[int, list[str]]:
        process = self.start(*options)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out.splitlines()

    def open(self) -> SqlLedger:
        return open_ledger(self.url, open_blobs(self.blobs), idle_s=1)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_postgres.running(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = f"sqlite:///{tmp_path}/home/ledger.db"
    if request.param == "postgresql":
        url = real_postgres.new_schema(request.getfixturevalue("postgres"))
    made = Place(url, tmp_path / "blobs")
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The shas of a run that nothing happened to."""
    blobs = open_blobs(tmp_path_factory.mktemp("blobs"))
    writer = Writer.on_new_chain(MemoryLedger(blobs), blobs)
    return [writer.head.sha, *(writer.learn().sha for _ in range(ROWS))]


def shas(ledger: SqlLedger) -> list[str]:
    head = ledger.head("main")
    rows = [row.sha for row in ledger.history("main")]
    assert (head.sha if head else None) == (rows[-1] if rows else None)
    return rows


@pytest.mark.parametrize(("place", "step"), KILLS, indirect=["place"])
def test_killed_at_any_step_the_next_process_ends_as_if_nothing_had_happened(
    place: Place, step: str, undisturbed: list[str]
) -> None:
    code, said = place.run("--strike", step)
    assert code == -signal.SIGKILL
    assert "done" not in said
    ledger = place.open()
    survived = shas(ledger)
    assert survived == undisturbed[: len(survived)]
    told = [line.split()[2] for line in said if line.startswith("row")]
    assert survived[1 : len(told) + 1] == told  # what was reported as committed is there
    ledger.close()
    code, said = place.run()  # the dead owner's lease of ten minutes is no obstacle
    assert (code, said[-1]) == (0, "done")
    ledger = place.open()
    assert shas(ledger) == undisturbed
    assert ledger.open_plan("main") is None
    ledger.close()


FREEZES = [
    *(("sqlite", step) for step in ("before-plan", "before-ledger-commit")),
    # PostgreSQL ends a session that sleeps inside a transaction, so that even this one can be followed.
    pytest.param("postgresql", "in-ledger-commit", marks=pytest.mark.postgres),
]


@pytest.mark.parametrize(("place", "step"), FREEZES, indirect=["place"])
def test_a_frozen_owner_thawed_beside_a_new_one_is_refused(
    place: Place, step: str, undisturbed: list[str]
) -> None:
    frozen = place.start("--strike", step, "--signal", "SIGSTOP", "--idle-s", "1")
    os.waitpid(frozen.pid, os.WUNTRACED)
    ledger = place.open()
    with pytest.raises(LeaseHeld, match=f"pid {frozen.pid} on host"):
        ledger.acquire("main", owner=this_owner(), ttl_s=60)
    ledger.close()
    code, said = place.run("--takeover")
    assert (code, said[-1]) == (0, "done")
    frozen.send_signal(signal.SIGCONT)
    out, _ = frozen.communicate(timeout=60)
    assert out.splitlines()[-1].startswith("fenced")
    ledger = place.open()
    assert shas(ledger) == undisturbed
    ledger.close()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_sqlite_owner_frozen_in_a_transaction_is_named(place: Place, undisturbed: list[str]) -> None:
    """It holds the file's lock, and only its end frees that; the operator learns which pid it is."""
    frozen = place.start("--strike", "in-ledger-commit", "--signal", "SIGSTOP")
    os.waitpid(frozen.pid, os.WUNTRACED)
    ledger = open_ledger(place.url, open_blobs(place.blobs), busy_s=0.1)
    with pytest.raises(LedgerUnavailable, match=f"locked.*pid {frozen.pid} on host.*frozen"):
        ledger.acquire("main", owner=this_owner(), ttl_s=60, takeover=True)
    ledger.close()
    frozen.kill()
    frozen.communicate()
    assert place.run()[1][-1] == "done"
    ledger = place.open()
    assert shas(ledger) == undisturbed
    ledger.close()


def test_of_processes_that_start_together_one_writes(place: Place, undisturbed: list[str]) -> None:
    """They also meet at the first migration, where the tables do not exist yet."""
    racers = [place.start("--wait") for _ in range(4)]
    first_words = [(racer, read_line(racer)) for racer in racers]
    winners = [racer for racer, line in first_words if line.startswith("taken")]
    assert len(winners) == 1
    assert all(line.startswith(("taken", "held chain main")) for _, line in first_words)
    out, _ = winners[0].communicate("go\n", timeout=60)
    assert out.splitlines()[-1] == "done"
    ledger = place.open()
    assert shas(ledger) == undisturbed
    ledger.close()


def test_takeovers_at_any_moment_leave_one_line(place: Place, undisturbed: list[str]) -> None:
    """Each newcomer takes the chain from the one before, who may be anywhere in its work."""
    crowd = [place.start("--takeover") for _ in range(4)]
    last_words = [process.communicate(timeout=60)[0].splitlines()[-1] for process in crowd]
    assert all(line == "done" or line.startswith("fenced") for line in last_words)
    assert "done" in last_words
    ledger = place.open()
    assert shas(ledger) == undisturbed
    ledger.close()


def test_a_dead_process_is_gone_and_a_live_one_is_not() -> None:
    host, _, where, _ = this_owner().split("/")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    owner = f"{host}/{child.pid}/{where}/{stat[19]}"
    assert not is_gone(this_owner())
    assert not is_gone(owner)
    assert is_gone(f"{host}/{child.pid}/{where}/1")  # the pid was given to someone else
    assert not is_gone(f"{host}/{child.pid}/elsewhere/1")  # another container's pids
    assert not is_gone(f"other/{child.pid}/{where}/1")
    assert not is_gone("nobody")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(owner)  # dead, though its parent has not looked yet
    child.communicate()
    assert is_gone(owner)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()
