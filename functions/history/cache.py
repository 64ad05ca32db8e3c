"""The reading half of the hot cache (`shared.hot`): one Redis call for all that read at the same time.

Redis away is no error here, only an empty cache.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.coalesce import Coalescer
from shared.hot import HotWriter, key_of

log = logging.getLogger(__name__)
T = TypeVar("T")

_NEWEST = """
local out = {}
for i, key in ipairs(KEYS) do
    out[i] = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or 0)
end
return out
"""
# A span that is not held whole is not sent at all: nobody could use it.
_READ = """
local out = {}
for i, key in ipairs(KEYS) do
    local first, last = ARGV[2 * i - 1], ARGV[2 * i]
    local found = redis.call('ZRANGEBYSCORE', key, first, last)
    out[i] = #found == last - first + 1 and found or {}
end
return out
"""


class HotCache:
    """Implements `pages.Cache`."""

    def __init__(self, redis: Redis) -> None:
        self._writer = HotWriter(redis)
        self._newest_script = redis.register_script(_NEWEST)
        self._read_script = redis.register_script(_READ)
        self._newest: Coalescer[str, int] = Coalescer(self._ask_newest)
        self._spans: Coalescer[tuple[str, int, int], Sequence[bytes]] = Coalescer(
            self._ask_spans, most=100
        )

    async def newest(self, conversation_id: str) -> int:
        """See `pages.Cache.newest`."""
        return await self._newest.ask(conversation_id)

    async def read(self, conversation_id: str, first: int, last: int) -> Sequence[bytes]:
        """See `pages.Cache.read`."""
        return await self._spans.ask((conversation_id, first, last))

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes]) -> None:
        """See `pages.Cache.repair`. The script leaves alone what is there: that is the same or newer."""
        if messages:
            await _or_nothing(
                lambda: self._writer.add({conversation_id: list(messages.items())}), None
            )

    async def _ask_newest(self, conversations: list[str]) -> Sequence[int]:
        return await _or_nothing(
            lambda: self._newest_script(keys=[key_of(c) for c in conversations]),
            [0] * len(conversations),
        )

    async def _ask_spans(self, spans: list[tuple[str, int, int]]) -> Sequence[Sequence[bytes]]:
        return await _or_nothing(
            lambda: self._read_script(
                keys=[key_of(c) for c, _, _ in spans],
                args=[bound for _, *bounds in spans for bound in bounds],
            ),
            [()] * len(spans),
        )


async def _or_nothing(call: Callable[[], Awaitable[T]], nothing: T) -> T:
    try:
        return await call()
    except (RedisError, OSError) as error:
        log.warning("redis is not reached, reading from SQL: %s", error)
        return nothing
