"""The first ledger: chains, snapshots, plans, floors, outbox, decisions."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None

SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables."""
    _chains()
    _snapshots()
    _plans()
    _floors()
    _outbox()
    _decisions()


def _chains() -> None:
    op.create_table(
        "chains",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("origin", sa.Text),
        sa.Column("head", sa.Text),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("expires_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", name="pk_chains"),
    )


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("sha", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("circumstance", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("discarded", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["chain"], ["chains.name"], name="fk_snapshots_chain"),
    )
    _unique_where("ux_snapshots_sha", "snapshots", ["sha"], "discarded IS NULL")
    _unique_where("ux_snapshots_seq", "snapshots", ["chain", "seq"], "discarded IS NULL")


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("sha", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("idx", sa.BigInteger, nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plans"),
        sa.ForeignKeyConstraint(["chain"], ["chains.name"], name="fk_plans_chain"),
    )
    _unique_where("ux_plans_open", "plans", ["chain"], "status = 'open'")


def _floors() -> None:
    key = ["chain", "topic", "partition", "at_offset", "floor_ms"]
    op.create_table(
        "floors",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.BigInteger, nullable=False),
        sa.Column("at_offset", sa.BigInteger, nullable=False),
        sa.Column("floor_ms", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_floors"),
        sa.ForeignKeyConstraint(["chain"], ["chains.name"], name="fk_floors_chain"),
        sa.UniqueConstraint(*key, name="uq_floors_chain_topic_partition_at_offset_floor_ms"),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("sha", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reference", sa.Text),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("sha", "target", name="uq_outbox_sha_target"),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("snapshot", sa.Text, nullable=False),
        sa.Column("previous", sa.Text),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_decisions"),
        sa.ForeignKeyConstraint(["chain"], ["chains.name"], name="fk_decisions_chain"),
    )


def _unique_where(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(
        name,
        table,
        columns,
        unique=True,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
