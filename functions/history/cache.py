"""The reading half of the hot cache (`shared.hot`): one Redis call for all that read at the same time.

Redis away is no error here, only an empty cache.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from functions.history.pages import Window
from functions.history.span import Bounds
from shared.coalesce import Coalescer
from shared.hot import HotWriter, key_of

log = logging.getLogger(__name__)

# The same arithmetic as in `span.span_of`, with the newest `seq` that Redis knows. A span that is not held whole is not
# sent at all: nobody could use it. One string of all messages is less work for both sides than a list of them.
_READ = """
local asked = cmsgpack.unpack(ARGV[1])
local out = {}
for i, key in ipairs(KEYS) do
    local after, before, limit = asked[i][1], asked[i][2], asked[i][3]
    local newest = tonumber(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or 0)
    local revision = redis.call('ZRANGEBYSCORE', key, 0, 0)[1]
    local first, last = 1, newest
    if before then last = math.min(last, before - 1) end
    if after then
        first = after + 1
        last = math.min(last, after + limit)
    else
        first = math.max(1, last - limit + 1)
    end
    local messages = ''
    if first <= last then
        local found = redis.call('ZRANGEBYSCORE', key, first, last)
        if #found == last - first + 1 then messages = table.concat(found, ',') end
    end
    out[i] = {newest, messages, revision and tonumber(string.sub(revision, 2)) or -1}
end
return out
"""
MAX_BATCH = 64
"""Pages of one call: Redis serves nobody else meanwhile."""

_encode = msgspec.msgpack.encode

Ask = tuple[str, Bounds]


class HotCache:
    """Implements `pages.Cache`."""

    def __init__(self, redis: Redis) -> None:
        self._writer = HotWriter(redis)
        self._script = redis.register_script(_READ)
        # One call at a time, while the next one gathers: much of the cost is by the call, not by the page.
        self._asks: Coalescer[Ask, Window] = Coalescer(self._read_all, most=MAX_BATCH, parallel=1)

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
        try:
            answers = await self._script(
                [key_of(c) for c, _ in asks], [_encode([bounds for _, bounds in asks])]
            )
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, reading from SQL: %s", error)
            return [Window(0, b"")] * len(asks)
        return [Window(*answer) for answer in answers]
