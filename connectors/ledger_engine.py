"""Two databases under one ledger: how each is opened, timed, locked, and how each one fails.

SQLite serves one host: WAL, synchronous FULL (a commit is on the device when it returns), writers
queue on BEGIN IMMEDIATE. PostgreSQL serves many: row locks, and a session that falls asleep inside a
transaction is ended by the server, so that a frozen owner cannot block its successor.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    inspect,
    literal_column,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from connectors.ledger_schema import REVISION
from posterior.snapshot import LedgerCorrupt, LedgerError, LedgerUnavailable

CLOCKS: Final = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}
INSERTS: Final[Mapping[str, Callable[[Table], sqlite.Insert | postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
WRITES: Final = "priorflow_writes"
ASLEEP: Final = "25P03"  # PostgreSQL ended a session that was idle inside a transaction
MIGRATING: Final = 0x7072696F  # advisory lock: one process migrates, the others wait


def open_engine(
    url: str, *, idle_s: float, busy_s: float, read_only: bool = False, migrates: bool = True
) -> Engine:
    """Connect by URL (sqlite:///FILE or postgresql://...) and bring the tables up to date.

    `idle_s` ends a session that sleeps inside a transaction (PostgreSQL); `busy_s` bounds waiting for
    another writer. One that only reads makes no file and no table, and the database holds it to that.
    Raises LedgerUnavailable, or LedgerError for a ledger that this release does not know: a newer one, or
    an older one where it only reads, or does not migrate.
    """
    address = _address(url)
    with translated(store := address.render_as_string(hide_password=True)):
        if address.get_backend_name() == "sqlite":
            engine = _sqlite_reader(address, busy_s) if read_only else _sqlite(address, busy_s)
        else:
            engine = _postgresql(address, idle_s, busy_s, read_only=read_only)
        try:
            if read_only or not migrates:
                _require_known(engine, store)
            else:
                _upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
    return engine


def clock(engine: Engine) -> ColumnElement[int]:
    """Return the database's own time in milliseconds, as an SQL expression."""
    return literal_column(CLOCKS[engine.dialect.name], BigInteger)


def insert_new(connection: Connection, table: Table, **values: Any) -> None:
    """Insert a row unless one with the same unique key is there."""
    statement = INSERTS[connection.dialect.name](table).on_conflict_do_nothing()
    connection.execute(statement.values(**values))


@contextmanager
def translated(store: str) -> Iterator[None]:
    """Turn the database's errors into the port's, by what the caller can do next."""
    try:
        yield
    except SQLAlchemyError as failed:
        if _passes(failed):
            message = f"ledger {store} cannot be reached or is locked: {_cause(failed)}"
            raise LedgerUnavailable(message) from failed
        if isinstance(failed, DatabaseError):
            message = f"ledger {store} refused a row or is damaged: {_cause(failed)}"
            raise LedgerCorrupt(message) from failed
        message = f"ledger {store}: {_cause(failed)}"
        raise LedgerError(message) from failed


def _passes(error: SQLAlchemyError) -> bool:
    """Tell whether the same call may succeed later: unreachable, locked, or our session was ended."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) == ASLEEP


def _address(url: str) -> URL:
    address = make_url(url)
    backend = address.get_backend_name()
    if backend not in CLOCKS and backend != "postgres":
        message = f"a ledger lives in sqlite:/// or postgresql://, not in {backend}:"
        raise LedgerError(message)
    return address if backend == "sqlite" else address.set(drivername="postgresql+psycopg")


def _sqlite(address: URL, busy_s: float) -> Engine:
    Path(_file(address)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(address, connect_args={"timeout": busy_s})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite_reader(address: URL, busy_s: float) -> Engine:
    file = _file(address)
    reader = address.set(database=f"file:{quote(file)}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(reader, connect_args={"timeout": busy_s})
    event.listen(engine, "connect", _prepare_reader)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _file(address: URL) -> str:
    if not address.database or address.database == ":memory:":
        message = "a SQLite ledger needs a file: sqlite:///PATH"
        raise LedgerError(message)
    return address.database


def _prepare_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver would otherwise begin transactions by itself, late
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_sqlite(connection: Connection) -> None:
    """Queue writers at the start: a reader that turns writer would fail instead of waiting."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(address: URL, idle_s: float, busy_s: float, *, read_only: bool) -> Engine:
    settings = (
        f"default_transaction_read_only = {'on' if read_only else 'off'}",
        f"idle_in_transaction_session_timeout = {int(idle_s * 1000)}",
        f"lock_timeout = {int(busy_s * 1000)}",
        "synchronous_commit = on",
    )

    def prepare(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(f"SET {setting}")
        connection.commit()

    engine = create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    event.listen(engine, "connect", prepare)
    return engine


def _upgrade(engine: Engine) -> None:
    """Run missing migrations in one transaction; processes that start together take turns."""
    with engine.connect() as connection:
        if _revision(connection) == REVISION:
            return
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
        if _revision(connection) != REVISION:
            from connectors.migrations.upgrade import upgrade  # noqa: PLC0415  0.1 s, seldom needed

            upgrade(connection)


def _require_known(engine: Engine, store: str) -> None:
    """Raise LedgerError, and say who brings it up to date, unless the ledger is as this release reads it."""
    with engine.connect() as connection:
        found = _revision(connection)
    if found != REVISION:
        what = (
            "has no tables yet" if found is None else f"is at revision {found}, this release reads {REVISION}"
        )
        message = (
            f"ledger {store} {what}; it is not migrated from here. `priorflow run` of this release brings it "
            "up to date: back it up, then start that"
        )
        raise LedgerError(message)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and found > REVISION:
        message = f"the ledger is at revision {found}, this release knows {REVISION}; upgrade it"
        raise LedgerError(message)
    return found


def _cause(error: Exception) -> object:
    return getattr(error, "orig", None) or error
