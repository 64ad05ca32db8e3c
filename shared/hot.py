"""The hot cache: the newest messages of each conversation in Redis, as the very JSON that is pushed.

One sorted set per conversation, `im:hot:<conversation_id>`: the score is `seq`, the member is the JSON of
`schemas.messages.Message`. It may be stale, have holes or be gone: since `seq` has no gaps and SQL knows the newest
one, a reader notices.
"""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

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


def fresh_key(user_id: int) -> str:
    """The Redis key of a user's newest conversations: a set of ids. They may not be stored yet."""
    return f"im:fresh:{user_id}"


FRESH_S = 60
"""How long a conversation counts as new; it is stored long before."""


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

    async def begin(self, conversations: Mapping[str, Sequence[int]]) -> None:
        """Notes new conversations for their members. Raises: redis.RedisError, OSError."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for conversation_id, members in conversations.items():
                for user_id in members:
                    pipe.sadd(fresh_key(user_id), conversation_id)
                    pipe.expire(fresh_key(user_id), FRESH_S)
            await pipe.execute()

    async def forget(self, conversations: Sequence[str]) -> None:
        """Removes conversations. Raises: redis.RedisError, OSError."""
        await self._redis.delete(*map(key_of, conversations))
