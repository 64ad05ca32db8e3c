"""Migrations: on SQLite and MariaDB, the whole command on real servers."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from minio import Minio
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from migrations.schema import upgrade
from shared.adapters.sql import open_engine
from shared.ids import month_of, now_ms
from shared.months import ensure_months, next_month
from shared.tables import message_table, metadata
from tests.servers import NatsServer, S3Server


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    yield opened
    await opened.dispose()


async def tables(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda c: inspect(c).get_table_names()))


def differences(connection: Connection) -> list[object]:
    """What a new revision would have to change, monthly tables aside."""
    options = {
        "include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables,
        "compare_type": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_the_revisions_give_the_tables_of_the_code(engine: AsyncEngine) -> None:
    await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_months_are_made_ahead(engine: AsyncEngine) -> None:
    before = month_of(now_ms())
    await upgrade(engine)
    for month in {before, next_month(before), next_month(month_of(now_ms()))}:
        assert f"message_{month}" in await tables(engine)


async def test_again_and_after_an_interrupted_run(engine: AsyncEngine) -> None:
    await upgrade(engine)
    everything = await tables(engine)
    async with engine.begin() as connection:
        # As if it had been stopped after some tables and before an index, which MySQL does not undo.
        await connection.execute(text("DELETE FROM alembic_version"))
        await connection.execute(text("DROP TABLE log_progress"))
        on = "" if engine.dialect.name == "sqlite" else " ON user"
        await connection.execute(text(f"DROP INDEX ix_user_nickname_key{on}"))
    await upgrade(engine)
    assert await tables(engine) == everything
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await upgrade(engine)


async def test_months_that_exist_get_new_columns(engine: AsyncEngine) -> None:
    await upgrade(engine)
    month = month_of(now_ms())
    async with engine.begin() as connection:
        # As revision 0004 left it, stopped after its first columns.
        await connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
        for column in ("edited_ms", "forward", "reactions", "pinned"):
            await connection.execute(text(f"ALTER TABLE message_{month} DROP COLUMN {column}"))
        for column in ("draft", "muted"):
            await connection.execute(text(f"ALTER TABLE user_conversation DROP COLUMN {column}"))
        await connection.execute(text("DROP TABLE message_change"))
    await upgrade(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        columns = await connection.run_sync(lambda c: inspect(c).get_columns(f"message_{month}"))
    assert [c["name"] for c in columns] == message_table(month).c.keys()


async def test_several_make_the_same_months_at_once(db_url: str) -> None:
    engines = [open_engine(db_url) for _ in range(4)]
    for first in (202501, 202503, 202505, 202507):
        await asyncio.gather(*(ensure_months(e, (first, first + 1)) for e in engines))
    assert {"message_202501", "message_202508"} <= await tables(engines[0])
    for engine in engines:
        await engine.dispose()


async def test_several_at_once(db_url: str) -> None:
    engines = [open_engine(db_url) for _ in range(4)]
    await asyncio.gather(*(upgrade(engine) for engine in engines))
    async with engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []
    for engine in engines:
        await engine.dispose()


async def migrate(**env: str) -> tuple[int | None, str]:
    """Status and standard error of `python -m migrations`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "migrations"),
        env={k: v for k, v in os.environ.items() if not k.startswith("IM_")} | env,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_the_command(tmp_path: Path, nats_server: NatsServer, s3_server: S3Server) -> None:
    env = {
        "IM_DB_URL": f"sqlite+aiosqlite:///{tmp_path / 'im.db'}",
        "IM_NATS_URL": nats_server.url,
        "IM_LOG_URL": "jetstream://",
        "IM_LOG_PARTITIONS": "8",
        "IM_S3_ENDPOINT": s3_server.url,
        "IM_S3_ACCESS_KEY": s3_server.access_key,
        "IM_S3_SECRET_KEY": s3_server.secret_key,
        "IM_S3_BUCKET": "files",
    }
    for _ in range(2):
        assert await migrate(**env) == (0, "")
    client = Minio(
        s3_server.url.removeprefix("http://"),
        s3_server.access_key,
        s3_server.secret_key,
        secure=False,
    )
    assert await asyncio.to_thread(client.bucket_exists, "files")


async def test_wrong_settings_and_servers_are_one_line(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    log = {"IM_NATS_URL": nats_server.url, "IM_LOG_URL": "jetstream://", "IM_LOG_PARTITIONS": "8"}
    assert await migrate(**log) == (1, "migrations: IM_DB_URL is not set\n")
    assert await migrate(IM_DB_URL="postgres://x") == (
        2,
        "migrations: IM_DB_URL: must start with mysql+aiomysql:// or sqlite+aiosqlite://\n",
    )
    status, errors = await migrate(**log, IM_DB_URL=f"sqlite+aiosqlite:///{tmp_path}/none/im.db")
    assert status == 1
    assert errors.startswith("migrations: IM_DB_URL: ")
    assert errors.count("\n") == 1
