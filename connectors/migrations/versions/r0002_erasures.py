"""What was erased: events by the sha256 of their ids, and states of the stream with what stands for them."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"

SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "erasures",
        sa.Column("id", SERIAL, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("instead", sa.Text),
        sa.Column("row", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.ForeignKeyConstraint(["chain"], ["chains.name"], name="fk_erasures_chain"),
        sa.UniqueConstraint("chain", "what", name="uq_erasures_chain_what"),
    )
