"""The ledger's tables. `migrations/` builds them; a test holds the two together.

JSON is kept as text, so that what is read back is byte for byte what was hashed. Rows of `snapshots`
and `plans` are never deleted: a row set aside keeps its reason in `discarded`.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION: Final = "0002"  # the newest migration: what this release reads and writes

SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

chains: Final = Table(
    "chains",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seed", BigInteger, nullable=False),
    Column("settings", Text, nullable=False),
    Column("origin", Text),
    Column("head", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text),
    Column("expires_ms", BigInteger),
)

snapshots: Final = Table(
    "snapshots",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("sha", Text, nullable=False),
    Column("chain", Text, ForeignKey("chains.name"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("circumstance", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("discarded", Text),
)
Index(
    "ux_snapshots_sha",
    snapshots.c.sha,
    unique=True,
    sqlite_where=text("discarded IS NULL"),
    postgresql_where=text("discarded IS NULL"),
)
Index(
    "ux_snapshots_seq",
    snapshots.c.chain,
    snapshots.c.seq,
    unique=True,
    sqlite_where=text("discarded IS NULL"),
    postgresql_where=text("discarded IS NULL"),
)

plans: Final = Table(
    "plans",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("sha", Text, nullable=False),
    Column("chain", Text, ForeignKey("chains.name"), nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("parent", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("epoch", BigInteger, nullable=False),
)
Index(
    "ux_plans_open",
    plans.c.chain,
    unique=True,
    sqlite_where=text("status = 'open'"),
    postgresql_where=text("status = 'open'"),
)

floors: Final = Table(
    "floors",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("chain", Text, ForeignKey("chains.name"), nullable=False),
    Column("topic", Text, nullable=False),
    Column("partition", BigInteger, nullable=False),
    Column("at_offset", BigInteger, nullable=False),
    Column("floor_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    UniqueConstraint("chain", "topic", "partition", "at_offset", "floor_ms"),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("sha", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reference", Text),
    Column("error", Text),
    UniqueConstraint("sha", "target"),
)

decisions: Final = Table(
    "decisions",
    metadata,
    Column("chain", Text, ForeignKey("chains.name"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("snapshot", Text, nullable=False),
    Column("previous", Text),
    Column("evidence", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

erasures: Final = Table(
    "erasures",
    metadata,
    Column("id", SERIAL, primary_key=True),
    Column("chain", Text, ForeignKey("chains.name"), nullable=False),
    Column("what", Text, nullable=False),
    Column("instead", Text),
    Column("row", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    UniqueConstraint("chain", "what"),
)
