"""The gate on a real Redis and SQL: existence, pairs, limits, and Redis away."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import tables
from shared.adapters.redis import open_redis
from shared.adapters.sql import open_engine
from shared.errors import Blocked, NotFound, NotFriend, RateLimited, Unauthenticated, Unavailable
from shared.gate import MESSAGES, Copies, Gate, Limit, Relation, pair_key, user_key
from shared.gate.gate import LIMITS
from tests.servers import RedisServer

BURST = LIMITS[MESSAGES].burst


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/im.db")
    async with engine.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
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
    gate = Gate(client, engine, limits=True, strangers=True)
    await asyncio.gather(
        *(gate.private(1, 2) for _ in range(20)), *(gate.private(2, 3) for _ in range(20))
    )
    with pytest.raises(NotFound, match="no user 99"):
        await gate.private(1, 99)
    with pytest.raises(Unauthenticated):
        await gate.private(99, 1)


async def test_what_is_known_is_not_asked_of_sql_again(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True, strangers=True)
    await gate.private(1, 2)
    await engine.dispose()
    broken = Gate(
        client,
        open_engine("sqlite+aiosqlite:////does/not/exist/im.db"),
        limits=True,
        strangers=True,
    )
    await broken.private(1, 2)
    with pytest.raises(Unavailable):
        await broken.private(1, 3)


async def test_a_deletion_holds_from_its_answer_on(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True, strangers=True)
    await gate.private(1, 2)
    await delete(engine, 2)
    await client.delete(user_key(2))  # what the deletion does before it answers
    with pytest.raises(NotFound):
        await gate.private(1, 2)


async def relate(engine: AsyncEngine, user: int, peer: int, status: int, *, friends: bool) -> None:
    """Writes one direction."""
    async with engine.begin() as connection:
        row = tables.friendship.c
        await connection.execute(
            tables.friendship.delete().where(row.user_id == user, row.friend_id == peer)
        )
        await connection.execute(
            insert(tables.friendship).values(
                user_id=user,
                friend_id=peer,
                status=status,
                created_at="2026-01-01 00:00:00.000",
                friends_ms=1 if friends else None,
                version=1,
            )
        )


async def test_a_load_from_before_a_change_cannot_bring_the_old_right_back(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    """Whatever was changed: a user deleted, a user blocked."""
    slow, fast = (Gate(client, engine, limits=True, strangers=True) for _ in range(2))
    read_old, go_on = asyncio.Event(), asyncio.Event()
    for loader, old in ((slow._people.users, "1"), (slow._people.pairs, "0")):

        async def read_slowly(wanted: Collection[Any], old: str = old) -> Mapping[Any, str]:
            read_old.set()
            await go_on.wait()
            return dict.fromkeys(wanted, old)  # as if read before the change

        loader._read = read_slowly
    late = asyncio.ensure_future(slow.private(1, 2))
    await read_old.wait()
    await relate(engine, 2, 1, tables.BLOCKED, friends=False)
    await delete(engine, 3)
    assert await slow.copies.forget(pair_key(1, 2), user_key(3))
    with pytest.raises(Blocked):
        await fast.private(1, 2)  # places a nonce of its own
    go_on.set()
    await late
    with pytest.raises(Blocked):
        await slow.private(1, 2)


@pytest.mark.parametrize("strangers", [True, False])
async def test_pairs(engine: AsyncEngine, client: redis.asyncio.Redis, strangers: bool) -> None:
    gate = Gate(client, engine, limits=True, strangers=strangers)
    other = pytest.raises(NotFriend) if not strangers else nullcontext()

    async def changed(user: int, peer: int, status: int, *, friends: bool) -> None:
        await relate(engine, user, peer, status, friends=friends)
        await gate.copies.forget(pair_key(peer, user))

    with other:
        await gate.private(1, 2)
    assert await gate.relation(1, 2) == Relation(False, False, False)
    for user, peer in ((1, 2), (2, 1)):
        await changed(user, peer, tables.NORMAL, friends=True)
    for _ in range(2):  # out of SQL, and out of the copy
        await gate.private(1, 2)
        await gate.private(2, 1)
    assert (await gate.relation(2, 1)).open_friends
    await changed(2, 1, tables.BLOCKED, friends=True)
    for _ in range(2):
        with pytest.raises(Blocked, match="this user has blocked you"):
            await gate.private(1, 2)
        with pytest.raises(Blocked, match="you have blocked"):
            await gate.private(2, 1)
    assert await gate.relation(1, 2) == Relation(True, False, True)
    assert await gate.relation(2, 1) == Relation(True, True, False)
    for user, peer in ((1, 2), (2, 1)):
        await changed(user, peer, tables.GONE, friends=False)
    with pytest.raises(NotFriend) if not strangers else nullcontext():
        await gate.private(2, 1)


async def test_a_burst_passes_and_then_it_is_limited(
    engine: AsyncEngine, client: redis.asyncio.Redis
) -> None:
    gate = Gate(client, engine, limits=True, strangers=True)
    results = await asyncio.gather(
        *(gate.private(1, 2) for _ in range(BURST + 50)), return_exceptions=True
    )
    limited = [r for r in results if isinstance(r, RateLimited)]
    # The bucket refills while the test runs, so a few more than the burst may pass.
    assert 0 < len(limited) <= 50
    assert all(r.retry_after_ms and r.retry_after_ms > 0 for r in limited)
    await gate.private(2, 1)  # others are not touched


async def test_questions_of_all_kinds_in_one_call(client: redis.asyncio.Redis) -> None:
    await client.mset({"a": "1", "b": "2", "c": "?load"})
    copies, slow = Copies(client), Limit(interval_ms=60_000, burst=3)
    answers = await asyncio.gather(
        copies.ask(slow, "l1", "a", "b"),
        copies.ask(slow, "l1", "c", "d"),
        copies.ask(slow, "l2"),
        copies.ask(None, "l1", "b", "a", "d"),
        copies.ask(Limit(interval_ms=1, burst=1), "l3", "b"),
        *(copies.ask(slow, "l1", "a", "e") for _ in range(3)),
        copies.ask(None, "", "b", "e"),
    )
    assert len({answer.nonce for answer in answers}) == 1
    values = [answer.values for answer in answers if not answer.wait_ms]
    assert values == [b"1|2", b"|", b"", b"2|1|", b"2", b"1|", b"2|"]
    waits = [answer.wait_ms for answer in answers]
    assert [wait > 0 for wait in waits] == [False] * 6 + [True] * 2 + [False], "three pass"
    assert all(59_000 < wait <= 60_000 for wait in waits if wait)
    nonce = answers[0].nonce.encode()
    assert await client.mget("a", "b", "c", "d", "e") == [b"1", b"2", nonce, nonce, nonce]
    assert (await copies.ask(slow, "l1", "a")).wait_ms, "it counts from call to call"
    assert not (await copies.ask(slow, "l2", "a")).wait_ms


async def test_a_question_that_must_wait_asks_for_no_load(client: redis.asyncio.Redis) -> None:
    copies, none = Copies(client), Limit(interval_ms=60_000, burst=0)
    assert (await copies.ask(none, "l", "a")).wait_ms
    assert not await client.exists("l", "a")


async def test_as_many_questions_as_one_call_may_have(client: redis.asyncio.Redis) -> None:
    copies, limit = Copies(client), Limit(interval_ms=50, burst=1)
    await client.mset({f"{kind}{i}": i for i in range(500) for kind in "abc"})
    answers = await asyncio.gather(
        *(copies.ask(limit, f"l{i}", f"a{i}", f"b{i}", f"c{i}") for i in range(500))
    )
    assert [answer.values for answer in answers] == [b"%d|%d|%d" % (i, i, i) for i in range(500)]
    assert len({answer.nonce for answer in answers}) == 1


async def test_limits_can_be_switched_off(engine: AsyncEngine, client: redis.asyncio.Redis) -> None:
    gate = Gate(client, engine, limits=False, strangers=True)
    await asyncio.gather(*(gate.private(1, 2) for _ in range(BURST * 5)))


async def test_without_redis_answers_are_right_and_limits_stay(
    engine: AsyncEngine, client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    gate = Gate(client, engine, limits=True, strangers=True)
    await gate.private(1, 2)
    redis_server.kill()
    try:
        with pytest.raises(NotFound):
            await gate.private(2, 99)
        results = await asyncio.gather(
            *(gate.private(1, 2) for _ in range(BURST + 50)), return_exceptions=True
        )
        assert sum(isinstance(r, RateLimited) for r in results) > 0
        assert sum(r is None for r in results) >= BURST
    finally:
        redis_server.start()
    await gate.private(3, 1)
