"""SQLAlchemy engines for MySQL, MariaDB (aiomysql) and SQLite (aiosqlite), set up so that they behave alike."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from shared.errors import Unavailable, UnknownOutcome

log = logging.getLogger(__name__)

T = TypeVar("T")

CANCEL_S = 5.0
SQLITE_LOCK_S = 30

_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError, OSError)


_SESSION = (
    "time_zone='+00:00'",  # TIMESTAMP columns mean the same everywhere
    "sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ENGINE_SUBSTITUTION'",  # too long a value fails, it is never cut
    "wait_timeout=10",  # a process that froze inside a transaction keeps its locks no longer
    "innodb_lock_wait_timeout=5",
    "group_concat_max_len=1048576",  # MariaDB would cut JSON_ARRAYAGG short without an error where it is set to less
)


def open_engine(url: str, *, pool_size: int = 8, autocommit: bool = False) -> AsyncEngine:
    """An engine for `mysql+aiomysql://…` or `sqlite+aiosqlite:///…`. Connects on first use; `dispose` closes it.

    autocommit: each statement is a transaction, which spares a reader of one statement the ROLLBACK's round trip.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_async_engine(
            parsed,
            pool_size=pool_size,
            hide_parameters=True,
            connect_args={"timeout": SQLITE_LOCK_S},
        )
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        return engine
    parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    engine = create_async_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # errors, which get logged, would quote contents and hashes
        isolation_level="AUTOCOMMIT" if autocommit else None,
        skip_autocommit_rollback=autocommit,
        connect_args={
            "connect_timeout": 5,
            "init_command": "SET " + ", ".join(_SESSION),
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


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


def _refuse_dead(connection: Any, _record: ConnectionPoolEntry, _proxy: Any) -> None:
    """Makes the pool open a new connection if the server has closed this one, without a round trip to ask.

    SQLAlchemy's `pool_pre_ping` costs one, and does not know the RuntimeError of uvloop's closed transports.
    """
    raw = connection.driver_connection
    reader = raw._reader  # noqa: SLF001 - aiomysql itself notices only when it writes
    # Nothing is asked while a connection is in the pool: what is there to read is the server's farewell.
    if raw.closed or reader.at_eof() or reader.exception() or reader._buffer:  # noqa: SLF001
        raw.close()
        raise DisconnectionError("the server has closed this connection")


async def to_the_end(statements: Coroutine[Any, Any, T]) -> T:
    """Lets statements end before their caller is cancelled: a SQLite transaction cancelled in the middle leaves its
    connection, and so the whole database, locked.
    """
    task = asyncio.create_task(statements)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=CANCEL_S)
        raise


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.run_async(_to_wal)
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")  # a COMMIT survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


async def _to_wal(connection: aiosqlite.Connection) -> None:
    """Lets readers go on beside the writer.

    SQLite's own timeout does not help: changing the mode of a new file fails at once while another has its lock.
    """
    give_up = time.monotonic() + SQLITE_LOCK_S
    while True:
        try:
            async with connection.execute("PRAGMA journal_mode=WAL"):
                return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # the rest says what kind
            if not busy or time.monotonic() > give_up:
                raise
        await asyncio.sleep(0.01)


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


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose queries all see the database as of one moment. Raises: Unavailable."""
    with reading():
        async with engine.connect() as connection:
            if (
                engine.dialect.name == "sqlite"
            ):  # its driver begins a transaction only before a write
                await connection.exec_driver_sql("BEGIN")
            yield connection
