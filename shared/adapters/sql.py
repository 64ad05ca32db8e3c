"""SQLAlchemy engines for MySQL, MariaDB (aiomysql) and SQLite (aiosqlite), set up so that they behave alike."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from shared.errors import Unavailable, UnknownOutcome

log = logging.getLogger(__name__)

_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError, OSError)


_SESSION = (
    "time_zone='+00:00'",  # TIMESTAMP columns mean the same everywhere
    "sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ENGINE_SUBSTITUTION'",  # too long a value fails, it is never cut
    "wait_timeout=10",  # a process that froze inside a transaction keeps its locks no longer
    "innodb_lock_wait_timeout=5",
)


def open_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """An engine for `mysql+aiomysql://…` or `sqlite+aiosqlite:///…`. Connects on first use; `dispose` closes it."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_async_engine(parsed, pool_size=pool_size, connect_args={"timeout": 30})
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        return engine
    parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    return create_async_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": 5,
            "init_command": "SET " + ", ".join(_SESSION),
        },
    )


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction: committed at the end of the block, rolled back if the block raises.

    Start it with a statement that writes: on SQLite one that began by reading may not go on to write.
    Raises: Unavailable if nothing happened; UnknownOutcome if the connection broke in the COMMIT.
    """
    committing = False
    try:
        async with engine.connect() as connection:
            yield connection
            committing = True
            await connection.commit()
    except _AWAY as error:
        log.warning("the database cannot be written: %s", error)
        if committing:
            raise UnknownOutcome("the database broke off; it may have happened") from error
        raise Unavailable("the database is not reached; nothing happened") from error


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # a COMMIT survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


@contextmanager
def reading() -> Iterator[None]:
    """Turns a database that is away into Unavailable: whoever only reads may try again.

    Errors that are ours (a wrong statement, a violated constraint) pass through.
    """
    try:
        yield
    except _AWAY as error:
        log.warning("the database is not reached: %s", error)
        raise Unavailable("the database is not reached; nothing happened") from None
