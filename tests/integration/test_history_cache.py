"""The hot cache as `history` reads it, on a real Redis: the script's arithmetic is that of `span_of`."""

import random
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisAway

from functions.history.cache import HotCache
from functions.history.pages import Window
from functions.history.span import Bounds, span_of
from functions.history.tail import Tails
from shared import hot
from shared.adapters.redis import open_redis
from shared.hot import KEPT, RENEW_S, SPARE, TTL_S, Batch, HotWriter, key_of
from tests.servers import RedisServer


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


def joined(seqs: Iterable[int]) -> bytes:
    return b",".join(map(message, seqs))


def message(seq: int) -> bytes:
    return b'{"seq":%d}' % seq


async def put(client: redis.asyncio.Redis, seqs: Iterable[int], rev: int = 0) -> None:
    await HotWriter(client).put({"p_1_2": new(seqs, rev)})


def new(seqs: Iterable[int], rev: int = 0) -> Batch:
    return Batch(rev, rev, {seq: message(seq) for seq in seqs}, set())


async def test_redis_and_python_mean_the_same_span(client: redis.asyncio.Redis) -> None:
    rng = random.Random(7)
    cache = HotCache(client)
    await put(client, range(1, 61))
    for _ in range(400):
        bounds = Bounds(
            rng.choice([None, rng.randrange(70)]),
            rng.choice([None, rng.randrange(70)]),
            rng.randrange(1, 70),
        )
        span = span_of(bounds, 60)
        expected = joined(range(span.first, span.last + 1))
        assert await cache.read("p_1_2", bounds) == Window(60, expected), bounds


async def test_a_span_that_is_not_held_whole_is_not_given(client: redis.asyncio.Redis) -> None:
    cache = HotCache(client)
    await put(client, (1, 2, 4, 5))
    assert await cache.read("p_1_2", Bounds(None, None, 2)) == Window(5, joined([4, 5]))
    assert await cache.read("p_1_2", Bounds(None, None, 3)) == Window(5, b"")
    await cache.repair("p_1_2", {3: message(3), 4: b"older"}, 0)
    assert await cache.read("p_1_2", Bounds(2, None, 9)) == Window(5, joined([3, 4, 5]))


async def test_only_the_newest_are_kept(client: redis.asyncio.Redis) -> None:
    await put(client, range(1, KEPT + 101))
    window = await HotCache(client).read("p_1_2", Bounds(None, None, KEPT))
    assert window == Window(KEPT + 100, joined(range(101, KEPT + 101)))
    assert await client.zcard(key_of("p_1_2")) == 1 + KEPT


async def test_never_fewer_than_the_newest_and_only_a_few_more(client: redis.asyncio.Redis) -> None:
    writer = HotWriter(client)
    for newest in range(1, KEPT + 3 * SPARE):
        await writer.put({"p_1_2": new([newest])})
        held = await client.zcard(key_of("p_1_2")) - 1
        assert min(newest, KEPT) <= held <= KEPT + SPARE
        seqs = range(newest - held + 1, newest + 1)
        assert await HotCache(client).read("p_1_2", Bounds(None, None, held)) == Window(
            newest, joined(seqs)
        )


async def test_a_cache_lives_for_a_day_after_the_last_change(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(hot, "time", SimpleNamespace(monotonic=lambda: now))
    writer, key = HotWriter(client), key_of("p_1_2")

    async def renewed(seq: int) -> bool:
        await client.expire(key, TTL_S - RENEW_S)
        await writer.put({"p_1_2": new([seq])})
        return bool(await client.ttl(key) > TTL_S - RENEW_S)

    assert await renewed(1)
    now = RENEW_S - 1
    assert not await renewed(2), "it lives for a day all the same"
    await client.delete(key)
    assert await renewed(4), "it was made anew"
    now = RENEW_S
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_put", away)
        with pytest.raises(RedisAway):
            await renewed(5)
    assert await renewed(6)
    assert not await renewed(7)
    monkeypatch.setattr(hot, "MAX_RENEWED", 0)
    assert await renewed(8), "it is not remembered without end"


async def away(*_: Any) -> None:
    raise RedisAway


async def test_redis_away_is_an_empty_cache(
    client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    cache = HotCache(client)
    redis_server.kill()
    try:
        assert await cache.read("p_1_2", Bounds(None, None, 5)) == Window(0, b"")
        await cache.repair("p_1_2", {1: message(1)}, 0)
    finally:
        redis_server.start()


def counted(seq: int) -> bytes:
    return b'{"seq":%d,"sender_id":2,"msg_type":1,"status":0,"timestamp":9}' % seq


async def test_what_is_not_stored_yet(client: redis.asyncio.Redis) -> None:
    messages = {s: counted(s) for s in range(1, 6)}
    fresh_of = [(1, "p_1_2"), (2, "p_1_2")]
    await HotWriter(client).put({"p_1_2": Batch(0, 0, messages, set())}, fresh_of)
    fresh, tails = await Tails(client).read(1, {"p_1_2": 3, "p_1_9": 0})
    assert fresh == frozenset({"p_1_2"})
    assert [m.seq for m, _ in tails["p_1_2"]] == [4, 5]
    assert tails["p_1_9"] == []
    assert await Tails(client).read(3, {"p_1_2": 5}) == (frozenset(), {"p_1_2": []})


async def test_redis_away_is_nothing_known(
    client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    redis_server.kill()
    try:
        assert await Tails(client).read(1, {"p_1_2": 0}) == (None, {})
    finally:
        redis_server.start()


async def held(client: redis.asyncio.Redis) -> tuple[int, bytes]:
    window = await HotCache(client).read("p_1_2", Bounds(None, None, KEPT))
    return window.rev, window.messages


def change(seq: int, before: int) -> Batch:
    return Batch(before, before + 1, {seq: b"changed %d" % seq}, {seq})


async def test_a_change_replaces_what_it_follows_on(client: redis.asyncio.Redis) -> None:
    await put(client, (1, 2, 3))
    await HotWriter(client).put({"p_1_2": change(2, before=0)})
    assert await held(client) == (1, b",".join([message(1), b"changed 2", message(3)]))
    await put(client, (4,), rev=1)
    assert await held(client) == (1, b",".join([message(1), b"changed 2", message(3), message(4)]))


async def test_a_replay_brings_nothing_older_back(client: redis.asyncio.Redis) -> None:
    await put(client, (1, 2))
    await HotWriter(client).put({"p_1_2": change(2, before=0)})
    before = await held(client)
    await put(client, (1, 2, 3))  # as of before the change: 3 may have been changed as well
    await HotWriter(client).put({"p_1_2": change(2, before=0)})
    assert await held(client) == before


async def test_a_cache_that_missed_a_change_begins_anew(client: redis.asyncio.Redis) -> None:
    await put(client, (1, 2))
    await HotWriter(client).put({"p_1_2": change(2, before=1)})
    assert (await HotCache(client).read("p_1_2", Bounds(None, None, 1))).messages == b"changed 2"
    assert (await held(client)) == (2, b"")
    await put(client, (3,), rev=5)
    assert (await HotCache(client).read("p_1_2", Bounds(2, None, 9))) == Window(3, message(3), 5)


async def test_repairs_follow_the_revision(client: redis.asyncio.Redis) -> None:
    cache = HotCache(client)
    await put(client, (2,), rev=4)
    await cache.repair("p_1_2", {1: b"old"}, 3)
    assert await held(client) == (4, b"")
    await cache.repair("p_1_2", {1: message(1), 2: b"same or newer"}, 4)
    assert await held(client) == (4, b",".join([message(1), message(2)]))
    await cache.repair("p_1_2", {1: b"tombstone", 2: b"edited"}, 5)
    assert await held(client) == (5, b",".join([b"tombstone", b"edited"]))


async def test_what_was_read_after_its_revision_follows_it_all_the_same(
    client: redis.asyncio.Redis,
) -> None:
    await put(client, (2,))
    await HotCache(client).repair("p_1_2", {1: b"changed 1"}, 0)
    await HotWriter(client).put({"p_1_2": change(1, before=0)})
    assert await held(client) == (1, b",".join([b"changed 1", message(2)]))


async def test_changes_and_new_messages_of_many_conversations_at_once(
    client: redis.asyncio.Redis,
) -> None:
    writer = HotWriter(client)
    await writer.put({"a": new((1, 2)), "b": new((1, 2, 3)), "c": new((1,), rev=7)})
    both = Batch(0, 2, {4: b"new 4", 3: b"changed 3", 1: b"changed 1"}, {1, 3})
    await writer.put(
        {"a": new((3,)), "b": both, "c": change(1, before=7), "d": new((1,), rev=2)}, [(5, "d")]
    )

    async def all_of(conversation: str) -> list[bytes]:
        found: Any = await client.zrange(key_of(conversation), 0, -1)
        return list(found)

    assert await all_of("a") == [b"r0", message(1), message(2), message(3)]
    assert await all_of("b") == [b"r2", b"changed 1", message(2), b"changed 3", b"new 4"]
    assert await all_of("c") == [b"r8", b"changed 1"]
    assert await all_of("d") == [b"r2", message(1)]
    assert await client.smembers("im:fresh:5") == {b"d"}


async def test_a_replay_doubles_nothing_and_fills_holes(client: redis.asyncio.Redis) -> None:
    writer = HotWriter(client)
    await put(client, (1, 2, 3))
    batch = Batch(0, 1, {5: message(5), 4: message(4), 2: b"changed 2"}, {2})
    await writer.put({"p_1_2": batch})
    before = await held(client)
    await writer.put({"p_1_2": batch})
    assert await held(client) == before
    # Of 2 Redis has something newer by now (see above), and 4 and 5 it has lost.
    await client.zremrangebyscore(key_of("p_1_2"), 2, 2)
    await client.zremrangebyscore(key_of("p_1_2"), 4, 5)
    await HotCache(client).repair("p_1_2", {2: b"newer 2"}, 1)
    await writer.put({"p_1_2": batch})
    expected = [message(1), b"newer 2", message(3), message(4), message(5)]
    assert await held(client) == (1, b",".join(expected))


async def test_a_replay_may_be_cut_otherwise(client: redis.asyncio.Redis) -> None:
    await put(client, (1, 2))
    await HotWriter(client).put({"p_1_2": change(1, before=0)})
    await HotWriter(client).put({"p_1_2": Batch(0, 2, {1: b"again", 2: b"changed"}, {1, 2})})
    assert await held(client) == (2, b"again,changed")
