"""Changes the schema safely: one process at a time, and again after an interrupted run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Table, text

LOCK_S = 60


@contextmanager
def schema_lock(connection: Connection) -> Iterator[None]:
    """Lets one process at a time look at the schema and change it, up to the end of its transaction on SQLite.

    On MySQL a transaction would not do, which commits each DDL statement by itself.
    """
    if connection.dialect.name == "sqlite":
        # Not a plain BEGIN, which would lock only after both have looked.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        return
    # One lock per database of the server.
    name = {"name": f"natterjack.{connection.engine.url.database}"[:64]}
    got = connection.execute(text(f"SELECT GET_LOCK(:name, {LOCK_S})"), name).scalar()
    if got != 1:
        raise TimeoutError(f"another process has been changing the schema for {LOCK_S} s")
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)


def create_missing(connection: Connection, tables: Iterable[Table]) -> None:
    """Creates the tables that are not there, and indexes that an interrupted run left out."""
    for table in tables:
        table.create(connection, checkfirst=True)
        for index in table.indexes:
            index.create(connection, checkfirst=True)
