"""Scripts on connections that are kept for them (`shared.adapters.redis`), on a real server that fails."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError

from laptop.servers import RedisServer
from shared.adapters import redis as adapter

ECHO = "return {#KEYS, ARGV[1]}"


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    opened = adapter.open_redis(redis_server.url)
    yield opened
    await opened.aclose()


async def test_each_call_gets_its_own_answer(client: redis.asyncio.Redis) -> None:
    echo = client.register_script(ECHO)
    values = [b"%d" % i for i in range(20)]
    assert await asyncio.gather(*(echo(["k"] * i, [v]) for i, v in enumerate(values))) == [
        [i, v] for i, v in enumerate(values)
    ]


async def test_a_burst_waits_its_turn_and_leaves_room_for_other_commands(
    client: redis.asyncio.Redis,
) -> None:
    work = client.register_script("for i = 1, 2000 do redis.call('PING') end return ARGV[1]")
    values = [b"%d" % i for i in range(2 * adapter.CONNECTIONS)]
    assert await asyncio.gather(*(work([], [v]) for v in values)) == values
    assert await client.delete("nothing") == 0
    await client.script_flush()
    assert await work([], ["again"]) == b"again"


async def test_a_script_that_fails_says_why_and_the_next_call_works(
    client: redis.asyncio.Redis,
) -> None:
    with pytest.raises(ResponseError, match="wrong"):
        await client.register_script("return redis.error_reply('wrong')")()
    assert await client.register_script(ECHO)([], ["x"]) == [0, b"x"]


async def test_a_server_that_comes_back_is_no_error(
    client: redis.asyncio.Redis, redis_server: RedisServer
) -> None:
    echo = client.register_script(ECHO)
    await echo([], ["x"])
    redis_server.kill()
    try:
        with pytest.raises(RedisError):
            await echo([], ["x"])
    finally:
        redis_server.start()
    await echo([], ["x"])
    redis_server.kill()
    redis_server.start()  # while the connection was idle; and the server has forgotten the script
    assert await echo([], ["y"]) == [0, b"y"]


async def test_a_late_answer_is_nobodys(
    client: redis.asyncio.Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = client.register_script(ECHO)
    await echo([], ["x"])
    redis_server.signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(adapter, "TIMEOUT_S", 0.05)
            with pytest.raises(LateError):
                await echo([], ["late"])
        cancelled = asyncio.create_task(echo([], ["cancelled"]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    finally:
        redis_server.signal(signal.SIGCONT)
    assert await echo([], ["mine"]) == [0, b"mine"]
