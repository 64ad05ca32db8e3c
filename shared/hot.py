"""The hot cache: the newest messages of each conversation in Redis, as the very JSON that is pushed.

One sorted set per conversation, `im:hot:<conversation_id>`: the score is `seq`, the member is the JSON of
`schemas.messages.Message`. It may be stale, have holes or be gone: since `seq` has no gaps and SQL knows the newest
one, a reader notices.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.coalesce import Coalescer

log = logging.getLogger(__name__)

KEPT = 200
"""Messages per conversation."""
TTL_S = 24 * 3600
"""After the last change."""

ADD = """
local at = 3
for _, key in ipairs(KEYS) do
    local last = at + 2 * tonumber(ARGV[at])
    for i = at + 1, last, 2 do
        -- What is there of this seq is the same or a newer revision: a replay must not bring the older one back.
        if redis.call('ZCOUNT', key, ARGV[i], ARGV[i]) == 0 then
            redis.call('ZADD', key, ARGV[i], ARGV[i + 1])
        end
    end
    redis.call('ZREMRANGEBYRANK', key, 0, -ARGV[1] - 1)
    redis.call('EXPIRE', key, ARGV[2])
    at = last + 1
end
"""
"""KEYS: one per conversation. ARGV: KEPT, TTL_S, then for each key the number of messages and seq, JSON of each."""


def key_of(conversation_id: str) -> str:
    """The Redis key of a conversation."""
    return f"im:hot:{conversation_id}"


Messages = Mapping[str, Sequence[tuple[int, bytes]]]
"""conversation_id → (seq, JSON) of messages, ascending."""


class HotWriter:
    """Adds messages of many conversations in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._add = redis.register_script(ADD)

    async def add(self, messages: Messages) -> None:
        """Adds what is not there and trims. Raises: redis.RedisError, OSError."""
        args: list[int | bytes] = [KEPT, TTL_S]
        for entries in messages.values():
            args.append(len(entries))
            for entry in entries:
                args += entry
        await self._add([key_of(c) for c in messages], args)

    async def forget(self, conversations: Sequence[str]) -> None:
        """Removes conversations. Raises: redis.RedisError, OSError."""
        await self._redis.delete(*map(key_of, conversations))


class HotCache:
    """Reads, and repairs what was missing. Redis away is an empty cache."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._writer = HotWriter(redis)
        self._ranges: Coalescer[tuple[Any, ...], list[tuple[bytes, float]]] = Coalescer(
            self._read_ranges
        )

    async def read(self, conversation_id: str, first: int, last: int) -> list[tuple[int, bytes]]:
        """(seq, JSON) of what is there between two `seq`, both included, ascending."""
        return await self._read(key_of(conversation_id), first, last, False)

    async def newest(self, conversation_id: str) -> int:
        """The newest `seq` that is there, 0 if none."""
        found = await self._read(key_of(conversation_id), 0, 0, True)
        return found[0][0] if found else 0

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes]) -> None:
        """Adds what was read from SQL, never over what is there."""
        if not messages:
            return
        try:
            await self._writer.add({conversation_id: sorted(messages.items())})
        except (RedisError, OSError) as error:
            log.warning("the hot cache is not reached: %s", error)

    async def _read(self, *span: Any) -> list[tuple[int, bytes]]:
        try:
            return [(int(seq), message) for message, seq in await self._ranges.ask(span)]
        except (RedisError, OSError) as error:
            log.warning("the hot cache is not reached: %s", error)
            return []

    async def _read_ranges(self, spans: list[tuple[Any, ...]]) -> list[list[tuple[bytes, float]]]:
        """One round trip for all that ask at the same time."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, first, last, newest in spans:
            if newest:
                pipeline.zrange(key, -1, -1, withscores=True)
            else:
                pipeline.zrangebyscore(key, first, last, withscores=True)
        return await pipeline.execute()
