"""The hot cache: the newest messages of each conversation in Redis, as the very JSON that is pushed.

One sorted set per conversation, `im:hot:<conversation_id>`: the score is `seq`, the member is the JSON of
`schemas.messages.Message` as it is now. The member with score 0, `r<message_rev>`, says up to which change of a
message the others are right. It may be stale, have holes or be gone: since `seq` has no gaps, and SQL knows the newest
message and the newest change, a reader notices.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

KEPT = 200
"""Messages per conversation."""
TTL_S = 24 * 3600
"""After the last change."""
FRESH_S = 60
"""Far longer than a COMMIT takes."""

# What is known of a key's revision: -1 if it is not there (or is none of ours, and then goes).
_REVISION = """
local function revision(key)
    local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[1] == nil then return -1 end
    if first[2] == '0' and string.sub(first[1], 1, 1) == 'r' then
        return tonumber(string.sub(first[1], 2))
    end
    redis.call('DEL', key)
    return -1
end
local function begin(key, rev)
    redis.call('ZREMRANGEBYSCORE', key, 0, 0)
    redis.call('ZADD', key, 0, 'r' .. rev)
end
local function finish(key)
    redis.call('ZREMRANGEBYRANK', key, 1, -ARGV[1] - 1)
    redis.call('EXPIRE', key, ARGV[2])
end
"""

PUT = (
    _REVISION
    + """
local at = 4
local keys = tonumber(ARGV[3])
for k = 1, keys do
    local key, before, after = KEYS[k], tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local last = at + 2 + 3 * tonumber(ARGV[at + 2])
    local rev = revision(key)
    if rev ~= -1 and rev < before then
        -- It has missed a change: nothing in it is known to be right.
        redis.call('DEL', key)
        rev = -1
    end
    -- A replay (rev > before) has been here already, and must not bring an older state back.
    if rev <= before then
        if rev ~= after then begin(key, after) end
        for i = at + 3, last, 3 do
            local seq = ARGV[i]
            if ARGV[i + 1] == '1' then redis.call('ZREMRANGEBYSCORE', key, seq, seq) end
            if redis.call('ZCOUNT', key, seq, seq) == 0 then
                redis.call('ZADD', key, seq, ARGV[i + 2])
            end
        end
        finish(key)
    end
    at = last + 1
end
for k = keys + 1, #KEYS do
    redis.call('SADD', KEYS[k], ARGV[at])
    redis.call('EXPIRE', KEYS[k], ARGV[at + 1])
    at = at + 2
end
"""
)
"""KEYS: one per conversation, then of fresh ones. ARGV: KEPT, TTL_S, number of conversations; for each of them
revision before and after, number of messages, and seq, whether it changed, JSON of each; for each fresh one its id and
FRESH_S.
"""

REPAIR = (
    _REVISION
    + """
local rev, stored = revision(KEYS[1]), tonumber(ARGV[3])
if rev > stored then return end
if rev < stored then
    redis.call('DEL', KEYS[1])
    begin(KEYS[1], stored)
end
for i = 4, #ARGV, 2 do
    if redis.call('ZCOUNT', KEYS[1], ARGV[i], ARGV[i]) == 0 then
        redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
    end
end
finish(KEYS[1])
"""
)
"""ARGV: KEPT, TTL_S, revision, then seq and JSON of each message."""


def key_of(conversation_id: str) -> str:
    """The Redis key of a conversation."""
    return f"im:hot:{conversation_id}"


def fresh_key(user_id: int) -> str:
    """The Redis key of a user's newest conversations: a set of ids. They may not be stored yet."""
    return f"im:fresh:{user_id}"


HotEntry = tuple[int, bool, bytes]
"""A message as it is now: `seq`, whether it changed (else it is only new, and what is there stays), its JSON."""


class Batch(NamedTuple):
    """What happened in a conversation, one after the other: from `before` to `after`, both a `message_rev`."""

    before: int
    after: int
    entries: Sequence[HotEntry]


class HotWriter:
    """Writes many conversations in one round trip. All methods raise redis.RedisError, OSError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put = redis.register_script(PUT)
        self._repair = redis.register_script(REPAIR)

    async def put(
        self, batches: Mapping[str, Batch], fresh: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Carries changes out where the cache is as they found it, adds messages and trims.

        fresh: (user_id, conversation_id) of conversations that begin.
        """
        keys = [key_of(c) for c in batches]
        args: list[int | bytes | str] = [KEPT, TTL_S, len(keys)]
        for before, after, entries in batches.values():
            args += (before, after, len(entries))
            for seq, changed, json in entries:
                args += (seq, int(changed), json)
        for user_id, conversation_id in fresh:
            keys.append(fresh_key(user_id))
            args += (conversation_id, FRESH_S)
        await self._put(keys, args)

    async def repair(self, conversation_id: str, rev: int, messages: Mapping[int, bytes]) -> None:
        """Adds messages by seq that were read from SQL after its `message_rev`, never over something newer."""
        args: list[int | bytes] = [KEPT, TTL_S, rev]
        for seq, json in messages.items():
            args += (seq, json)
        await self._repair([key_of(conversation_id)], args)

    async def forget(self, conversations: Sequence[str]) -> None:
        """Removes conversations."""
        await self._redis.delete(*map(key_of, conversations))
