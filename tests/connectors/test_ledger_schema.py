"""The ledger's tables: migrations and declarations say the same, old and new releases are told apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from connectors.blobs import MemoryBlobs
from connectors.ledger import open_ledger
from connectors.ledger_engine import open_engine
from connectors.ledger_schema import REVISION, metadata
from connectors.migrations.upgrade import config
from posterior.snapshot import LedgerCorrupt, LedgerError, LedgerUnavailable
from tests.connectors import real_postgres
from tests.connectors.chain_builder import Writer, a_chain


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
    else:
        with real_postgres.running(tmp_path / "pg") as server:
            yield server


def test_migrations_build_what_is_declared(url: str) -> None:
    engine = open_engine(url, idle_s=10, busy_s=10)
    with engine.connect() as connection:
        script = ScriptDirectory.from_config(config(connection))
        assert script.get_heads() == [REVISION]
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_ledger_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    engine = open_engine(url, idle_s=10, busy_s=10)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(LedgerError, match="revision 9999"):
        open_ledger(url, MemoryBlobs())


def test_an_older_ledger_is_read_by_nobody_who_may_not_migrate_it(url: str) -> None:
    """Whoever only reads says which command brings it up to date, and leaves it as it was."""
    engine = open_engine(url, idle_s=10, busy_s=10)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    for read_only, migrates in ((True, True), (False, False)):
        with pytest.raises(LedgerError, match=r"at revision 0000.*`priorflow run`"):
            open_ledger(url, MemoryBlobs(), read_only=read_only, migrates=migrates)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0000"
    engine.dispose()


def test_what_is_opened_to_be_read_is_read_beside_its_writer_and_cannot_be_written(url: str) -> None:
    blobs = MemoryBlobs()
    ledger = open_ledger(url, blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    row = writer.learn()
    reader = open_ledger(url, blobs, read_only=True)
    assert reader.history("main") == ledger.history("main")
    ledger.decide("main", at_ms=1, actor="a", action="promote", snapshot=row.sha, evidence={})
    newest = writer.learn()
    assert reader.head("main") == newest
    assert reader.decided("main") == 1
    with pytest.raises(LedgerError, match="opened to be read"):
        reader.decide("main", at_ms=1, actor="a", action="promote", snapshot=row.sha, evidence={})
    with pytest.raises(LedgerError, match="opened to be read"):
        reader.acquire("main", owner="a", ttl_s=1)
    engine = open_engine(url, idle_s=10, busy_s=10, read_only=True)
    with pytest.raises(DBAPIError, match=r"read-?only"), engine.begin() as connection:
        connection.execute(text("DELETE FROM decisions"))  # the database itself refuses
    engine.dispose()
    assert ledger.decided("main") == 1
    reader.close()
    ledger.close()


def test_a_ledger_without_tables_is_not_given_any_by_a_reader(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    with pytest.raises(LedgerError, match=r"no tables yet.*`priorflow run`"):
        open_ledger(url, MemoryBlobs(), read_only=True)


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        open_ledger(f"sqlite:///{tmp_path}/no/ledger.db", MemoryBlobs(), read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["what? 100%#.db", "ledger.db"])
def test_a_reader_finds_a_file_of_any_name_when_no_writer_is_there(tmp_path: Path, name: str) -> None:
    url = URL.create("sqlite", database=str(tmp_path / name)).render_as_string()
    ledger = open_ledger(url, MemoryBlobs())
    ledger.create(a_chain())
    ledger.close()
    reader = open_ledger(url, MemoryBlobs(), read_only=True)
    assert [chain.name for chain in reader.chains()] == ["main"]
    reader.close()


def test_a_reader_sees_what_a_killed_writer_had_committed(tmp_path: Path) -> None:
    """Its rows are in the log beside the file, and nobody is there to fold them in."""
    blobs = MemoryBlobs()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    row = Writer.on_new_chain(ledger, blobs).learn()
    left = tmp_path / "left"
    left.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    ledger.close()
    reader = open_ledger(f"sqlite:///{left}/ledger.db", blobs, read_only=True)
    assert reader.head("main") == row
    reader.close()


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db", idle_s=10, busy_s=3)
    with engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    engine.dispose()
    assert found == ["wal", 2, 1, 3_000]


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_only_what_keeps_promises_is_accepted(url: str) -> None:
    with pytest.raises(LedgerError, match="sqlite:///"):
        open_ledger(url, MemoryBlobs())


def test_a_password_is_never_shown() -> None:
    url = "postgresql://me:sesame@127.0.0.1:1/nothing"
    with pytest.raises(LedgerUnavailable, match=r"postgresql.*me") as told:
        open_ledger(url, MemoryBlobs())
    assert "sesame" not in str(told.value)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 500)
    with pytest.raises(LedgerCorrupt, match="not a database"):
        open_ledger(f"sqlite:///{tmp_path}/ledger.db", MemoryBlobs())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE snapshots SET manifest = replace(manifest, '3.5', '3.6') WHERE seq = 1", "altered"),
        ("UPDATE snapshots SET manifest = '{' WHERE seq = 1", "cannot be read"),
        ("UPDATE snapshots SET manifest = '{\"format\":2}' WHERE seq = 1", "this release reads"),
        ("DELETE FROM snapshots WHERE seq = 1", "expected here"),
        ("UPDATE snapshots SET discarded = 'hidden' WHERE seq = 0", "expected here"),
    ],
)
def test_rows_altered_behind_our_back_are_told(tmp_path: Path, tamper: str, message: str) -> None:
    blobs = MemoryBlobs()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    writer.learn()
    writer.learn()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(tamper)
    connection.close()
    with pytest.raises(LedgerCorrupt, match=message):
        ledger.history("main")
    ledger.close()


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE decisions SET action = 'promote' WHERE seq = 1",
        "UPDATE decisions SET evidence = '{}' WHERE seq = 0",
        "DELETE FROM decisions WHERE seq = 0",
        "UPDATE decisions SET seq = 7 WHERE seq = 1",
    ],
)
def test_a_decision_log_altered_behind_our_back_is_told(tmp_path: Path, tamper: str) -> None:
    blobs = MemoryBlobs()
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db", blobs)
    row = Writer.on_new_chain(ledger, blobs).learn()
    for action in ("promote", "refuse"):
        ledger.decide("main", at_ms=1, actor="a", action=action, snapshot=row.sha, evidence={"n": 1})
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(tamper)
    connection.close()
    with pytest.raises(LedgerCorrupt, match="does not chain"):
        ledger.decisions("main")
    with pytest.raises(LedgerCorrupt, match="does not chain"):
        ledger.decide("main", at_ms=2, actor="a", action="refuse", snapshot=row.sha, evidence={})
    ledger.close()


def test_a_ledger_survives_being_opened_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/ledger.db"
    for _ in range(2):
        ledger = open_ledger(url, MemoryBlobs())
        ledger.create(a_chain())
        ledger.close()
