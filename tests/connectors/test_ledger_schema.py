"""The ledger's tables: migrations and declarations say the same, old and new releases are told apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

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
