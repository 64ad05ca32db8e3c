"""Who is on-line, in Redis. All of it may be lost: edges report their connections again, clients subscribe again.

im:on:edges         edges by the time of their last sign of life
im:on:dead          edges that are gone, whose connections are still being taken off, likewise
im:on:edge:<edge>   the connections of an edge, as <user>:<connection>
im:on:user:<user>   <connection> → "<edge> <platform>": he is on-line if there is one of an edge that is known above
im:seen:<user>      when his last device left, Unix ms
im:watch:<user>     who is to hear of him, by when that lapses, Unix ms
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

import redis.asyncio
from redis.exceptions import RedisError

from schemas.presence import Connection, Presence
from schemas.types import Platform
from shared.errors import Unavailable
from shared.ids import now_ms

DEAD_AFTER_MS = 20_000
"""An edge that gave no sign of life for so long is gone."""
SEEN_FOR_S = 90 * 86_400
"""How long it is known when somebody was here last."""
SWEPT_AT_ONCE = 500
"""Most connections of a dead edge that are taken off in one call, which holds up everybody else's."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
# The kinds of a user's devices, sorted; empty: he is off-line. Connections of edges that nobody knows any more (Redis
# had lost a part) are removed.
_DEVICES = """
local function devices(user)
  local key, found, list = 'im:on:user:' .. user, {}, {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local space = string.find(all[i + 1], ' ', 1, true)
    local edge = string.sub(all[i + 1], 1, space - 1)
    if redis.call('ZSCORE', 'im:on:edges', edge) or redis.call('ZSCORE', 'im:on:dead', edge) then
      found[string.sub(all[i + 1], space + 1)] = true
    else
      redis.call('HDEL', key, all[i])
    end
  end
  for platform in pairs(found) do list[#list + 1] = platform end
  table.sort(list)
  return table.concat(list, ',')
end
"""
# ARGV: edge, begins, replaces, ends, number of joined, then user, connection and platform of each joined and user and
# connection of each left. Answers the users whose devices are others now, or false if the edge is not known.
_REPORT = f"""
{_NOW} {_DEVICES}
local edge, before, changed = ARGV[1], {{}}, {{}}
if ARGV[2] ~= '1' and not redis.call('ZSCORE', 'im:on:edges', edge) then return false end
redis.call('ZADD', 'im:on:edges', now, edge)
local i = 6
local function note(user)
  if not before[user] then before[user] = devices(user) end
end
for _ = 1, tonumber(ARGV[5]) do
  local user, connection = ARGV[i], ARGV[i + 1]
  note(user)
  redis.call('HSET', 'im:on:user:' .. user, connection, edge .. ' ' .. ARGV[i + 2])
  redis.call('SADD', 'im:on:edge:' .. edge, user .. ':' .. connection)
  i = i + 3
end
while i <= #ARGV do
  local user, connection = ARGV[i], ARGV[i + 1]
  note(user)
  redis.call('HDEL', 'im:on:user:' .. user, connection)
  redis.call('SREM', 'im:on:edge:' .. edge, user .. ':' .. connection)
  i = i + 2
end
for user, was in pairs(before) do
  local is = devices(user)
  if is ~= was then
    changed[#changed + 1] = user
    if is == '' then redis.call('SET', 'im:seen:' .. user, now, 'EX', {SEEN_FOR_S}) end
  end
end
for _, gone in ipairs({{ARGV[3], ARGV[4] == '1' and edge or ''}}) do
  if gone ~= '' and redis.call('ZREM', 'im:on:edges', gone) == 1 then
    redis.call('ZADD', 'im:on:dead', now, gone)
  end
end
return changed
"""
# Answers how many connections were taken off, then the users whose devices are others now.
_SWEEP = f"""
{_NOW} {_DEVICES}
for _, edge in ipairs(redis.call('ZRANGEBYSCORE', 'im:on:edges', '-inf', now - {DEAD_AFTER_MS})) do
  redis.call('ZADD', 'im:on:dead', redis.call('ZSCORE', 'im:on:edges', edge), edge)
  redis.call('ZREM', 'im:on:edges', edge)
end
local dead = redis.call('ZRANGE', 'im:on:dead', 0, 0, 'WITHSCORES')
if #dead == 0 then return {{0}} end
local edge, last = dead[1], dead[2]
local taken = redis.call('SPOP', 'im:on:edge:' .. edge, {SWEPT_AT_ONCE})
local before, answer = {{}}, {{#taken + 1}}
for _, one in ipairs(taken) do
  local colon = string.find(one, ':', 1, true)
  local user, connection = string.sub(one, 1, colon - 1), string.sub(one, colon + 1)
  if not before[user] then before[user] = devices(user) end
  local value = redis.call('HGET', 'im:on:user:' .. user, connection)
  if value and string.sub(value, 1, #edge + 1) == edge .. ' ' then
    redis.call('HDEL', 'im:on:user:' .. user, connection)
  end
end
for user, was in pairs(before) do
  local is = devices(user)
  if is ~= was then
    answer[#answer + 1] = user
    if is == '' then redis.call('SET', 'im:seen:' .. user, last, 'EX', {SEEN_FOR_S}) end
  end
end
if #taken == 0 then redis.call('ZREM', 'im:on:dead', edge) end
return answer
"""
# Answers the time, then devices and last seen of each user.
_READ = f"""
{_NOW} {_DEVICES}
local answer = {{now}}
for _, user in ipairs(ARGV) do
  answer[#answer + 1] = devices(user)
  answer[#answer + 1] = redis.call('GET', 'im:seen:' .. user) or ''
end
return answer
"""

_PLATFORMS: Mapping[str, Platform] = {
    platform: platform for platform in get_args(get_args(Platform)[0])
}


class Joined(NamedTuple):
    """A connection, and the kind of its device."""

    connection: Connection
    platform: Platform


class Report(NamedTuple):
    """What an edge says; see `schemas.presence.ReportPresence`."""

    edge: str
    joined: Sequence[Joined]
    left: Sequence[Connection]
    begins: bool = False
    replaces: str = ""
    ends: bool = False


class PresenceStore:
    """All methods raise Unavailable without Redis."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._report = client.register_script(_REPORT)
        self._sweep = client.register_script(_SWEEP)
        self._read = client.register_script(_READ)

    async def report(self, report: Report) -> list[int] | None:
        """The users whose devices are others now; None if the edge is not known (any more)."""
        args: list[str | int] = [
            report.edge,
            int(report.begins),
            report.replaces,
            int(report.ends),
            len(report.joined),
        ]
        for connection, platform in report.joined:
            args += (connection.user_id, connection.connection_id, platform)
        for connection in report.left:
            args += (connection.user_id, connection.connection_id)
        try:
            changed = await self._report(args=args)
        except (RedisError, OSError) as error:
            raise _away(error) from None
        return None if changed is None else [int(user) for user in changed]

    async def sweep(self) -> tuple[bool, list[int]]:
        """Takes off some connections of an edge that is gone: whether there may be more, and whose devices are others
        now. Any number of processes may do this at a time.
        """
        try:
            taken, *changed = await self._sweep()
        except (RedisError, OSError) as error:
            raise _away(error) from None
        return taken > 0, [int(user) for user in changed]

    async def read(self, user_ids: Sequence[int]) -> list[Presence]:
        """In the order asked."""
        if not user_ids:
            return []
        try:
            at, *found = await self._read(args=list(user_ids))
        except (RedisError, OSError) as error:
            raise _away(error) from None
        return [
            _presence(user_id, found[2 * i].decode(), found[2 * i + 1], at)
            for i, user_id in enumerate(user_ids)
        ]

    async def watch(self, watcher: int, user_ids: Sequence[int], life_s: int) -> None:
        """`watcher` is to hear of these for so long; with 0 no more."""
        now = now_ms()
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for user_id in user_ids:
                    key = _watch_key(user_id)
                    if life_s:
                        pipe.zremrangebyscore(key, "-inf", now)
                        pipe.zadd(key, {str(watcher): now + life_s * 1000})
                        pipe.expire(key, life_s)
                    else:
                        pipe.zrem(key, str(watcher))
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise _away(error) from None

    async def watchers(self, user_ids: Iterable[int]) -> list[list[int]]:
        """Who is to hear of each of these."""
        now = now_ms()
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for user_id in user_ids:
                    pipe.zrangebyscore(_watch_key(user_id), now, "+inf")
                return [[int(watcher) for watcher in found] for found in await pipe.execute()]
        except (RedisError, OSError) as error:
            raise _away(error) from None


def _presence(user_id: int, devices: str, seen: bytes, at: int) -> Presence:
    if devices:
        kinds = [_PLATFORMS[d] for d in devices.split(",") if d in _PLATFORMS]
        return Presence(user_id, online=True, devices=kinds, at=at)
    return Presence(user_id, online=False, last_seen=int(seen) if seen else None, at=at)


def _watch_key(user_id: int) -> str:
    return f"im:watch:{user_id}"


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"presence is not known right now: {type(error).__name__}")
