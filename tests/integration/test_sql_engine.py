"""Engines on real servers: what a server closed is not used again, and a frozen transaction ends."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.adapters.sql import open_engine
from tests.servers import MariaDbServer
from tests.support import until


async def test_a_connection_that_the_server_closed_is_replaced(
    mariadb_server: MariaDbServer,
) -> None:
    engine = open_engine(await mariadb_server.new_database(), pool_size=1)
    other = open_engine(mariadb_server.url + "mysql", pool_size=1)
    async with engine.connect() as connection:
        first = (await connection.execute(text("SELECT CONNECTION_ID()"))).scalar()
    async with other.connect() as connection:
        await connection.execute(text(f"KILL {first}"))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT CONNECTION_ID()"))).scalar() != first
    await engine.dispose()
    await other.dispose()


async def test_a_connection_that_was_idle_for_too_long_is_replaced(
    mariadb_server: MariaDbServer,
) -> None:
    engine = open_engine(await mariadb_server.new_database(), pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text("SET SESSION wait_timeout=1"))
        raw: Any = (await connection.get_raw_connection()).driver_connection
        reader = raw._reader
    await until(lambda: reader._buffer or reader.at_eof() or reader.exception())
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await engine.dispose()


async def test_sessions_are_strict_in_utc_and_do_not_hold_locks_for_ever(
    mariadb_server: MariaDbServer,
) -> None:
    engine = open_engine(await mariadb_server.new_database())
    async with engine.connect() as connection:
        row = (
            await connection.execute(
                text("SELECT @@time_zone, @@wait_timeout, @@sql_mode, @@innodb_lock_wait_timeout")
            )
        ).one()
    assert (row[0], row[1], row[3]) == ("+00:00", 10, 5)
    assert "STRICT_ALL_TABLES" in row[2]
    await engine.dispose()


async def test_who_opens_a_new_file_that_another_just_writes_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if other.in_transaction:
            other.execute("COMMIT")

    monkeypatch.setattr("shared.adapters.sql.asyncio.sleep", pause)
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
    assert pauses
    await engine.dispose()
    other.close()
