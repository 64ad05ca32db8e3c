"""Changes of messages in SQL and Redis: whatever happens on the way, what is stored is what the log means."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import Table, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.timeline.hot import RedisHot
from functions.timeline.state import Answer, Conversation, Position
from functions.timeline.store import SqlStore
from migrations.schema import upgrade
from shared import hot, patience, tables
from shared.adapters.redis import open_redis
from shared.adapters.sql import open_engine
from shared.hot import HotWriter, key_of
from shared.log import REQUESTS
from shared.lookup import message_of
from tests.servers import RedisServer
from tests.unit.test_timeline_shell import COLUMNS, MemoryStore, World

KEPT_TABLES = (
    tables.message_change,
    tables.message_edit,
    tables.message_reaction,
    tables.conversation_pin,
    tables.message_mention,
)


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = open_redis(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


class SqlWorld(World):
    """The world of the interleavings, on real servers."""

    def __init__(self, seed: int, engine: AsyncEngine, redis: Redis) -> None:
        super().__init__(seed)
        self.works_on = SqlStore(engine)
        self.hot = RedisHot(HotWriter(redis))

    async def pause(self) -> None:
        """Servers take longer than what is in memory: without a pause all were in the log before the first push."""
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.01]))

    def _behind(self) -> bool:
        newest = {r.partition: r.offset + 1 for r in self.log.records(REQUESTS)}
        owned = self.last._owned
        return any(p not in owned or owned[p].committed.next < end for p, end in newest.items())

    def _answered(self, subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        if not headers:
            self.answers.setdefault(subject, set()).add(payload)


async def _all(connection: AsyncConnection, table: Table) -> list[Any]:
    return list(await connection.execute(select(table)))


async def stored(engine: AsyncEngine) -> MemoryStore:
    """All that is in SQL."""
    store = MemoryStore(random.Random(0))
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda c: inspect(c).get_table_names())
        for name in (n for n in names if n.startswith("message_2")):
            for row in await _all(connection, tables.message_table(int(name[8:]))):
                values = list(row)
                at = COLUMNS.index("created_at")
                if isinstance(values[at], datetime):
                    values[at] = values[at].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
                store.rows[row.id] = tuple(values)
        for key, digest, msg_id, seq in await _all(connection, tables.message_key):
            store.answers[key] = Answer(digest, msg_id, seq)
        months = {
            row.conversation_id: row.month
            for row in await _all(connection, tables.conversation_month)
        }
        for row in await _all(connection, tables.conversation):
            i = row.conversation_id
            store.heads[i] = Conversation(
                row.max_seq, row.max_rev, months[i], row.message_rev, max_uuid=row.max_uuid
            )
        for row in await _all(connection, tables.user_conversation):
            if row.delivered_seq:
                place = (row.user_id, row.conversation_id)
                store.positions[place] = Position(row.read_seq, row.read_rev, row.delivered_seq)
        for table in KEPT_TABLES:
            keys = len(table.primary_key.columns)
            rows = [tuple(row) for row in await _all(connection, table)]
            store.tables[table.name] = {row[:keys]: row for row in rows}
    return store


async def check_cache(redis: Redis, store: MemoryStore) -> int:
    """What the cache holds of conversations that it believes to know is what is stored. Returns how many that is."""
    held = 0
    for conversation_id, head in store.heads.items():
        entries: Any = await redis.zrange(key_of(conversation_id), 0, -1, withscores=True)
        if not entries or entries[0][0] != b"r%d" % head.message_rev:
            continue
        by_seq = {r[10]: r for r in store.rows.values() if r[2] == conversation_id}
        for json, seq in entries[1:]:
            row: Any = SimpleNamespace(**dict(zip(COLUMNS, by_seq[int(seq)], strict=True)))
            assert json == msgspec.json.encode(message_of(row))
            held += 1
    return held


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_stored_and_cached_is_what_the_log_means(
    engine: AsyncEngine, redis: Redis, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_S", (0.0, 0.0))
    world = SqlWorld(seed, engine, redis)
    async with asyncio.timeout(60):
        await world.run()
    world.store = await stored(engine)
    assert world.violations() == []
    assert len(world.store.tables["message_change"]) > 5
    assert await check_cache(redis, world.store) > 0


async def emptied(engine: AsyncEngine, redis: Redis) -> None:
    """Nothing was ever stored."""
    await redis.flushall()
    async with engine.begin() as connection:
        for name in await connection.run_sync(lambda c: inspect(c).get_table_names()):
            if name != "alembic_version":
                await connection.exec_driver_sql(f"DELETE FROM `{name}`")


async def test_the_check_catches_a_recall_that_leaves_the_cache_as_it_was(
    engine: AsyncEngine, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_S", (0.0, 0.0))
    replace = "call('ZREMRANGEBYSCORE', key, ARGV[i], ARGV[i])"
    assert replace in hot.PUT
    monkeypatch.setattr(hot, "PUT", hot.PUT.replace(replace, ""))
    # A change in the batch of its message leaves nothing behind, and how batches fall is up to the machine.
    for seed in range(5):
        await emptied(engine, redis)
        world = SqlWorld(seed, engine, redis)
        async with asyncio.timeout(60):
            await world.run()
        try:
            await check_cache(redis, await stored(engine))
        except AssertionError:
            return
    pytest.fail("no history shows it")


async def test_texts_that_sql_could_misread(engine: AsyncEngine, redis: Redis) -> None:
    """Emojis are compared byte by byte, and stand in DELETE statements."""
    del redis
    store, emojis = SqlStore(engine), ["'", "\\", "\\'", "e", "é", "E", "👍", "👍🏽", "%s", "?"]
    async with engine.begin() as connection:
        rows = [(7, emoji, 1, i) for i, emoji in enumerate(emojis)]
        await store._rows.insert(connection, tables.message_reaction, rows)
    for left in range(len(emojis), 0, -1):
        async with engine.begin() as connection:
            assert len(await _all(connection, tables.message_reaction)) == left
            await store._remove(connection, "message_reaction", [(7, emojis[left - 1], 1)])
