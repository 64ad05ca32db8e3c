"""The gate before the log, on a real Redis and SQL: existence, limits, and Redis away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.send.gate import BURST, Gate
from shared import tables
from shared.adapters.redis import open_redis, user_key
from shared.adapters.sql import open_engine
from shared.errors import NotFound, RateLimited, Unauthenticated, Unavailable
from tests.servers import RedisServer


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/im.db")
    async with engine.begin() as connection:
        await connection.run_sync(tables.user.metadata.create_all)
        for name in ("alice", "bob", "carol"):
            await connection.execute(
                insert(tables.user).values(
                    username=name,
                    username_key=name,
                    nickname=name,
                    nickname_key=name,
                    password_hash="",
                    created_ms=0,
                )
            )
    yield engine
    await engine.dispose()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


async def delete(engine: AsyncEngine, user_id: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            update(tables.user).where(tables.user.c.id == user_id).values(deleted_ms=1)
        )


async def test_only_users_that_exist(engine: AsyncEngine, client: redis.asyncio.Redis) -> None:
    gate = Gate(client, engine, limits=True)
    await asyncio.gather(
        *(gate.admit(1, 2) for _ in range(20)), *(gate.admit(2, 3) for _ in range(20))
    )
    with pytest.raises(NotFound, match="no user 99"):
        await gate.admit(1, 99)
    with pytest.raises(Unauthenticated):
        await gate.admit(99, 1)


async def test_what_is_known_is_not_asked_of_sql_again(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True)
    await gate.admit(1, 2)
    await engine.dispose()
    broken = Gate(client, open_engine("sqlite+aiosqlite:////does/not/exist/im.db"), limits=True)
    await broken.admit(1, 2)
    with pytest.raises(Unavailable):
        await broken.admit(1, 3)


async def test_a_deletion_holds_from_its_answer_on(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True)
    await gate.admit(1, 2)
    await delete(engine, 2)
    await client.delete(user_key(2))  # what the deletion does before it answers
    with pytest.raises(NotFound):
        await gate.admit(1, 2)


async def test_a_load_from_before_a_deletion_cannot_bring_the_user_back(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    slow, fast = Gate(client, engine, limits=True), Gate(client, engine, limits=True)
    read_old, go_on = asyncio.Event(), asyncio.Event()
    ask_sql = slow._users._call

    async def ask_slowly(loads: list[tuple[int, str]]) -> object:
        read_old.set()
        await go_on.wait()
        # As if the rows had been read before the deletion: the fill is what must not happen.
        fill = slow._fill
        await fill(keys=[user_key(u) for u, _ in loads], args=[60, *(n for _, n in loads)])
        return [True for _ in loads]

    slow._users._call = ask_slowly  # type: ignore[assignment]
    late = asyncio.ensure_future(slow.admit(1, 2))
    await read_old.wait()
    await delete(engine, 2)
    await client.delete(user_key(2))
    with pytest.raises(NotFound):
        await fast.admit(1, 2)  # places a nonce of its own
    go_on.set()
    await late
    slow._users._call = ask_sql
    with pytest.raises(NotFound):
        await slow.admit(1, 2)


async def test_a_burst_passes_and_then_it_is_limited(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True)
    results = await asyncio.gather(
        *(gate.admit(1, 2) for _ in range(BURST + 50)), return_exceptions=True
    )
    limited = [r for r in results if isinstance(r, RateLimited)]
    # The bucket refills while the test runs, so a few more than the burst may pass.
    assert 0 < len(limited) <= 50
    assert all(r.retry_after_ms and r.retry_after_ms > 0 for r in limited)
    await gate.admit(2, 1)  # others are not touched


async def test_limits_can_be_switched_off(engine: AsyncEngine, client: redis.asyncio.Redis) -> None:
    gate = Gate(client, engine, limits=False)
    await asyncio.gather(*(gate.admit(1, 2) for _ in range(BURST * 5)))


async def test_without_redis_answers_are_right_and_limits_stay(
    engine: AsyncEngine, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    gate = Gate(client, engine, limits=True)
    await gate.admit(1, 2)
    redis_server.kill()
    try:
        with pytest.raises(NotFound):
            await gate.admit(2, 99)
        results = await asyncio.gather(
            *(gate.admit(1, 2) for _ in range(BURST + 50)), return_exceptions=True
        )
        assert sum(isinstance(r, RateLimited) for r in results) > 0
        assert sum(r is None for r in results) >= BURST
    finally:
        redis_server.start()
    await gate.admit(3, 1)
