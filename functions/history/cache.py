"""The reading half of the hot cache (`shared.hot`): one Redis call for all that read at the same time.

Redis away is no error here, only an empty cache.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from functions.history.pages import Window
from functions.history.span import Bounds
from shared.coalesce import Coalescer
from shared.hot import HotWriter, key_of

log = logging.getLogger(__name__)

# The same arithmetic as in `span.span_of`, with the newest `seq` that Redis knows. A span that is not held whole is not
# sent at all: nobody could use it.
_READ = """
local out = {}
for i, key in ipairs(KEYS) do
    local after, before, limit = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
    local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or 0)
    local revision = redis.call('ZRANGEBYSCORE', key, 0, 0)[1]
    local first, last = 1, newest
    if before >= 0 then last = math.min(last, before - 1) end
    if after >= 0 then
        first = after + 1
        last = math.min(last, after + limit)
    else
        first = math.max(1, last - limit + 1)
    end
    local found = {}
    if first <= last then
        found = redis.call('ZRANGEBYSCORE', key, first, last)
        if #found ~= last - first + 1 then found = {} end
    end
    out[i] = {newest, found, revision and tonumber(string.sub(revision, 2)) or -1}
end
return out
"""
MAX_BATCH = 64
"""Pages of one call: Redis serves nobody else meanwhile."""

Ask = tuple[str, Bounds]


class HotCache:
    """Implements `pages.Cache`."""

    def __init__(self, redis: Redis) -> None:
        self._writer = HotWriter(redis)
        self._script = redis.register_script(_READ)
        self._asks: Coalescer[Ask, Window] = Coalescer(self._read_all, most=MAX_BATCH)

    def read(self, conversation_id: str, bounds: Bounds) -> Awaitable[Window]:
        """See `pages.Cache.read`."""
        return self._asks.ask((conversation_id, bounds))

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes], rev: int) -> None:
        """See `pages.Cache.repair`. The script leaves alone what is newer."""
        if not messages:
            return
        try:
            await self._writer.repair(conversation_id, rev, messages)
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, the cache stays as it is: %s", error)

    async def _read_all(self, asks: list[Ask]) -> Sequence[Window]:
        args = [
            -1 if bound is None else bound
            for _, bounds in asks
            for bound in (bounds.after, bounds.before, bounds.limit)
        ]
        try:
            answers = await self._script(keys=[key_of(c) for c, _ in asks], args=args)
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, reading from SQL: %s", error)
            return [Window(0, ())] * len(asks)
        return [Window(newest, messages, rev) for newest, messages, rev in answers]
