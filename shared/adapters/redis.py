"""The Redis client, with time-outs: Redis away must cost a caller little, since every answer can be had without it."""

from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import DataError


def open_redis(url: str) -> redis.asyncio.Redis:
    """A client for `redis://…` or `rediss://…` that answers bytes. Connects on first use."""
    # Blocking: the plain pool fails the caller that finds all connections in use.
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        socket_connect_timeout=1.0,
        socket_timeout=1.0,
        health_check_interval=0,
        retry=Retry(
            NoBackoff(), 1
        ),  # one more try at once covers a connection that died while idle
        max_connections=16,
        timeout=1.0,
    )
    pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
    return redis.asyncio.Redis.from_pool(pool)


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
