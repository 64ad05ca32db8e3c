"""The hot cache: the newest messages of each conversation in Redis, as the very JSON that is pushed.

One sorted set per conversation, `im:hot:<conversation_id>`: the score is `seq`, the member is the JSON of
`schemas.messages.Message` as it is now. The member with score 0, `r<message_rev>`, says up to which change of a
message the others are right. It may be stale, have holes or be gone: since `seq` has no gaps, and SQL knows the newest
message and the newest change, a reader notices.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis

KEPT = 200
"""Messages per conversation: the newest so many."""
SPARE = 16
"""And up to so many more: to remove some at once takes Redis hardly longer than to remove one."""
RENEW_S = 3600
"""A change renews the life of its key, but not twice within this time."""
TTL_S = 24 * 3600 + RENEW_S
"""So a key lives for a day after the last change."""
MAX_RENEWED = 100_000
"""Keys that a process knows to be renewed. Beyond, it renews them early."""
FRESH_S = 60
"""Far longer than a COMMIT takes."""

_KEY = """
local call = redis.call
-- What is known of a key's revision: -1 if it is not there (or is none of ours, and then goes).
local function revision(key)
    local first = call('ZRANGE', key, '0', '0', 'WITHSCORES')
    if first[1] == nil then return -1 end
    if first[2] == '0' and string.sub(first[1], 1, 1) == 'r' then
        return tonumber(string.sub(first[1], 2))
    end
    call('DEL', key)
    return -1
end
local function begin(key, rev)
    call('DEL', key)
    call('ZADD', key, '0', 'r' .. rev)
    call('EXPIRE', key, ARGV[3])
end
-- Messages: seq and JSON of each, from ARGV[first] to ARGV[last].
local function add_missing(key, first, last)
    for i = first, last, 2 do
        if call('ZCOUNT', key, ARGV[i], ARGV[i]) == 0 then
            call('ZADD', key, ARGV[i], ARGV[i + 1])
        end
    end
end
local function trim(key)
    call('ZREMRANGEBYRANK', key, '1', -ARGV[1] - 1)
end
"""

# A call costs Redis more than most of what is called, and a number as an argument more than a string. A message on top
# of the others, which is what nearly always comes, is three calls.
PUT = (
    _KEY
    + """
local most, changes, keys, at = ARGV[1] + ARGV[2], tonumber(ARGV[4]), ARGV[4] + ARGV[5], 6
-- What is at the revision before goes to the one after, without what changed: that comes below.
for k = 1, changes do
    local key, last = KEYS[k], at + 2 + ARGV[at + 2]
    if call('ZREM', key, 'r' .. ARGV[at]) == 1 then
        call('ZADD', key, '0', 'r' .. ARGV[at + 1])
        for i = at + 3, last do call('ZREMRANGEBYSCORE', key, ARGV[i], ARGV[i]) end
    end
    at = last + 1
end
for k = changes + 1, keys do
    local key, rev, first = KEYS[k], ARGV[at], at + 2
    at = first + 2 * ARGV[at + 1]
    -- The number of its messages, or false if it is not at this revision.
    local held = call('ZREVRANK', key, 'r' .. rev)
    if not held and revision(key) < tonumber(rev) then
        -- It is not there or has missed a change: nothing in it is known to be right.
        begin(key, rev)
        held = 0
    end
    -- One that is beyond has had all of it: a replay must not bring an older state back.
    if held then
        if call('ZCOUNT', key, ARGV[first], '+inf') == 0 then
            call('ZADD', key, unpack(ARGV, first, at - 1))
        else
            add_missing(key, first, at - 1)
        end
        if held + (at - first) / 2 > most then trim(key) end
    end
end
for k = keys + 1, #KEYS do
    if ARGV[at] ~= '' then call('SADD', KEYS[k], ARGV[at]) end
    call('EXPIRE', KEYS[k], ARGV[at + 1])
    at = at + 2
end
"""
)
"""KEYS: conversations in which messages changed; all conversations; what is to live longer, which is conversations
again and sets of fresh ones. ARGV: KEPT, SPARE, TTL_S, numbers of the first and the second keys. For each of the first:
revision before and after, number of changed messages, their seqs. For each of the second: revision after, number of
messages (`unpack` takes 4,000), seq and JSON of each, ascending. For each of the third: an id to add to it, or an empty
one, and its life in s.
"""

REPAIR = (
    _KEY
    + """
local key, rev, stored = KEYS[1], revision(KEYS[1]), tonumber(ARGV[4])
if rev > stored then return end
if rev < stored then begin(key, ARGV[4]) end
add_missing(key, 5, #ARGV)
trim(key)
call('EXPIRE', key, ARGV[3])
"""
)
"""ARGV: KEPT, SPARE, TTL_S, revision, then seq and JSON of each message."""


def key_of(conversation_id: str) -> str:
    """The Redis key of a conversation."""
    return f"im:hot:{conversation_id}"


def fresh_key(user_id: int) -> str:
    """The Redis key of a user's newest conversations: a set of ids. They may not be stored yet."""
    return f"im:fresh:{user_id}"


class Batch(msgspec.Struct):
    """What happened in a conversation, from `before` to `after`, both a `message_rev`."""

    before: int
    after: int
    messages: dict[int, bytes]
    """New and changed ones by `seq`: their JSON as of `after`."""
    changed: set[int]
    """Those that replace what is there. Where the others are there already, what is there stays."""


class HotWriter:
    """Writes many conversations in one round trip. All methods raise redis.RedisError, OSError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put = redis.register_script(PUT)
        self._repair = redis.register_script(REPAIR)
        self._renewed: set[str] = set()
        self._renewed_since = 0.0

    async def put(
        self, batches: Mapping[str, Batch], fresh: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Carries changes out where the cache is as they found it, adds messages and trims.

        fresh: (user_id, conversation_id) of conversations that begin.
        """
        changing: list[str] = []
        changes: list[int] = []
        keys: list[str] = []
        args: list[int | bytes | str] = []
        for conversation_id, batch in batches.items():
            key = key_of(conversation_id)
            keys.append(key)
            if batch.changed:
                changing.append(key)
                changes += (batch.before, batch.after, len(batch.changed), *batch.changed)
            messages = batch.messages
            args += (batch.after, len(messages))
            for seq in sorted(messages):
                args += (seq, messages[seq])
        head = (KEPT, SPARE, TTL_S, len(changing), len(keys))
        due = self._due(batches)
        for conversation_id in due:
            keys.append(key_of(conversation_id))
            args += ("", TTL_S)
        for user_id, conversation_id in fresh:
            keys.append(fresh_key(user_id))
            args += (conversation_id, FRESH_S)
        await self._put([*changing, *keys], [*head, *changes, *args])
        self._renewed.update(due)

    def _due(self, conversations: Iterable[str]) -> list[str]:
        """Those whose lives are to be renewed. A key that is made anew has got its life by that."""
        now = time.monotonic()
        if now >= self._renewed_since + RENEW_S or len(self._renewed) > MAX_RENEWED:
            self._renewed.clear()
            self._renewed_since = now
        return [c for c in conversations if c not in self._renewed]

    async def repair(self, conversation_id: str, rev: int, messages: Mapping[int, bytes]) -> None:
        """Adds messages by seq that were read from SQL after its `message_rev`, never over something newer."""
        args: list[int | bytes] = [KEPT, SPARE, TTL_S, rev]
        for seq, json in messages.items():
            args += (seq, json)
        await self._repair([key_of(conversation_id)], args)

    async def forget(self, conversations: Sequence[str]) -> None:
        """Removes conversations."""
        await self._redis.delete(*map(key_of, conversations))
