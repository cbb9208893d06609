"""Run alembic on a connection that is already open and in a transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision."""
    command.upgrade(config(connection), "head")


def config(connection: Connection) -> Config:
    """Point alembic at the migrations beside this file and at the caller's connection."""
    settings = Config(attributes={"connection": connection})
    settings.set_main_option("script_location", str(Path(__file__).parent))
    return settings
