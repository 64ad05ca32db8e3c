"""The Redis client, with time-outs: Redis away must cost a caller little, since every answer can be had without it."""

import asyncio
from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as LateError

TIMEOUT_S = 1.0
CONNECTIONS = 32
KEPT = 16
"""How many of them are kept for scripts, as soon as so many were needed at once."""


def open_redis(url: str) -> redis.asyncio.Redis:
    """A client for `redis://…` or `rediss://…` that answers bytes. Connects on first use."""
    # Blocking: the plain pool fails the caller that finds all connections in use.
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        socket_connect_timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        health_check_interval=0,
        retry=Retry(
            NoBackoff(), 1
        ),  # one more try at once covers a connection that died while idle
        max_connections=CONNECTIONS,
        timeout=TIMEOUT_S,
    )
    pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
    return _Client.from_pool(pool)


class _Client(redis.asyncio.Redis):
    """Calls scripts, which is nearly all that the road asks of Redis, on connections that it keeps for them.

    redis-py's own way takes a connection out of the pool for each call, writes in a task of its own, for the
    time-out, and reports to its metrics: nearly half of what a call costs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: list[AbstractConnection] = []
        # More wait for one of these. The rest of the pool stays for all that is no script.
        self._seats = asyncio.Semaphore(KEPT)
        self._closed = False

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """See `Redis.evalsha`. Once more if the connection has died, as it may have while nobody used it."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._seats:
                used = bool(self._idle)
                connection = self._idle.pop() if used else await self._take()
                try:
                    command = connection.pack_command("EVALSHA", sha, numkeys, *keys_and_args)
                    try:
                        return await _answer(connection, command)
                    except BrokenError:
                        if not used or self._closed:
                            raise
                        return await _answer(connection, command)
                finally:
                    # What went wrong has closed it; the next call opens it again.
                    self._idle.append(connection)
        except TimeoutError:
            raise LateError("no answer of redis in time") from None

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """See `Redis.aclose`. Calls under way fail."""
        self._closed = True
        await super().aclose(close_connection_pool)

    async def _take(self) -> AbstractConnection:
        connection: AbstractConnection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None  # ours is one for both ways
        return connection


async def _answer(connection: AbstractConnection, command: list[bytes]) -> Any:
    await connection.send_packed_command(command, check_health=False)
    return await connection.read_response()


class _Packing:
    """Writes commands by hiredis, as redis-py's connections for threads do; those for asyncio join pieces in Python,
    which for a call with hundreds of arguments costs more than the call.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """`args`: str, bytes, int or float; the first may be several words. Raises: DataError."""
        try:
            return [hiredis.pack_command((*args[0].split(), *args[1:]))]
        except TypeError as error:
            raise DataError(str(error)) from None
