"""The hot cache as `history` reads it, on a real Redis: the script's arithmetic is that of `span_of`."""

import random
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from functions.history.cache import HotCache
from functions.history.pages import Window
from functions.history.span import Bounds, span_of
from functions.history.tail import Tails
from shared.adapters.redis import open_redis
from shared.hot import KEPT, HotWriter
from tests.servers import RedisServer


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


def message(seq: int) -> bytes:
    return b'{"seq":%d}' % seq


async def test_redis_and_python_mean_the_same_span(client: redis.asyncio.Redis) -> None:
    rng = random.Random(7)
    cache = HotCache(client)
    await HotWriter(client).add({"p_1_2": [(s, message(s)) for s in range(1, 61)]})
    for _ in range(400):
        bounds = Bounds(
            rng.choice([None, rng.randrange(70)]),
            rng.choice([None, rng.randrange(70)]),
            rng.randrange(1, 70),
        )
        span = span_of(bounds, 60)
        expected = [message(s) for s in range(span.first, span.last + 1)]
        assert await cache.read("p_1_2", bounds) == Window(60, expected), bounds


async def test_a_span_that_is_not_held_whole_is_not_given(client: redis.asyncio.Redis) -> None:
    cache = HotCache(client)
    await HotWriter(client).add({"p_1_2": [(s, message(s)) for s in (1, 2, 4, 5)]})
    assert await cache.read("p_1_2", Bounds(None, None, 2)) == Window(5, [message(4), message(5)])
    assert await cache.read("p_1_2", Bounds(None, None, 3)) == Window(5, [])
    await cache.repair("p_1_2", {3: message(3), 4: b"older"}, 0)
    assert await cache.read("p_1_2", Bounds(2, None, 9)) == Window(
        5, [message(s) for s in (3, 4, 5)]
    )


async def test_only_the_newest_are_kept(client: redis.asyncio.Redis) -> None:
    await HotWriter(client).add({"p_1_2": [(s, message(s)) for s in range(1, KEPT + 101)]})
    window = await HotCache(client).read("p_1_2", Bounds(None, None, KEPT))
    assert window == Window(KEPT + 100, [message(s) for s in range(101, KEPT + 101)])


async def test_redis_away_is_an_empty_cache(
    client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    cache = HotCache(client)
    redis_server.kill()
    try:
        assert await cache.read("p_1_2", Bounds(None, None, 5)) == Window(0, ())
        await cache.repair("p_1_2", {1: message(1)}, 0)
    finally:
        redis_server.start()


def counted(seq: int) -> bytes:
    return b'{"seq":%d,"sender_id":2,"msg_type":1,"status":0}' % seq


async def test_what_is_not_stored_yet(client: redis.asyncio.Redis) -> None:
    writer = HotWriter(client)
    await writer.add({"p_1_2": [(s, counted(s)) for s in range(1, 6)]})
    await writer.begin({"p_1_2": (1, 2)})
    fresh, tails = await Tails(client).read(1, {"p_1_2": 3, "p_1_9": 0})
    assert fresh == {"p_1_2"}
    assert [m.seq for m, _ in tails["p_1_2"]] == [4, 5]
    assert tails["p_1_9"] == []
    assert await Tails(client).read(3, {"p_1_2": 5}) == (frozenset(), {"p_1_2": []})


async def test_redis_away_is_nothing_unstored(
    client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    redis_server.kill()
    try:
        assert await Tails(client).read(1, {"p_1_2": 0}) == (frozenset(), {})
    finally:
        redis_server.start()
