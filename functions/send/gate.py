"""The gate before the log: rate limit and existence of both users, in one Redis round trip for all that wait.

Redis holds copies only. A user that it does not know is read from SQL, under a load nonce: a deletion removes the
key, and with it the nonce, so that a reader which was under way cannot put the old answer back. Without Redis the
answers come from SQL, and limits are kept in this process.
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import redis.asyncio
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import tables
from shared.adapters.redis import user_key
from shared.adapters.sql import reading
from shared.coalesce import Coalescer
from shared.errors import NotFound, RateLimited, Unauthenticated
from shared.ids import random_token

log = logging.getLogger(__name__)

RATE_PER_S = 20
BURST = 100
KNOWN_FOR_S = 60
"""How long a copy lives if the deletion that should have removed it crashed in between."""

# Three keys a message: limit of the sender, sender, receiver. Two answers a message: ms to wait (0: go), which users
# are not known here (1: sender, 2: receiver, 3: both; their keys then hold the nonce). The limit is a GCRA: one number
# a user, the time at which his bucket will be full again.
_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nonce, interval, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function known(key)
  local value = redis.call('GET', key)
  if value == '1' then return true end
  redis.call('SET', key, nonce, 'PX', 10000)
  return false
end
local out = {}
for i = 1, #KEYS, 3 do
  local wait = 0
  if interval > 0 then
    local full = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + interval
    if full - now > burst then
      wait = full - now - burst
    else
      redis.call('SET', KEYS[i], full, 'PX', burst + 1000)
    end
  end
  local missing = 0
  if not known(KEYS[i + 1]) then missing = 1 end
  if not known(KEYS[i + 2]) then missing = missing + 2 end
  out[#out + 1] = math.ceil(wait)
  out[#out + 1] = missing
end
return out
"""
_FILL = """
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[i + 1] then redis.call('SET', KEYS[i], '1', 'EX', ARGV[1]) end
end
"""

REST_S = 3.0
"""After a failure Redis is not asked for so long."""


class _Verdict(NamedTuple):
    """`missing`: whose existence Redis does not know; `nonce`: what then stands under their keys."""

    wait_ms: int
    missing: int
    nonce: str


class Gate:
    """Implements `handler.Admission` on Redis and SQL."""

    def __init__(self, client: redis.asyncio.Redis, engine: AsyncEngine, *, limits: bool) -> None:
        self._redis = client
        self._engine = engine
        self._admit = client.register_script(_ADMIT)
        self._fill = client.register_script(_FILL)
        self._interval_ms = 1000 // RATE_PER_S if limits else 0
        self._nonces = (f"{prefix}.{n}" for prefix in [random_token()] for n in count())
        self._own_limits: dict[int, float] = {}
        self._resting_until = 0.0
        self._verdicts = Coalescer(self._ask_redis)
        self._users = Coalescer(self._ask_sql)

    async def admit(self, sender: int, receiver: int) -> None:
        """Returns if `sender` may write to `receiver` now.

        Raises: RateLimited; Unauthenticated if the sender's account is gone; NotFound for the receiver; Unavailable.
        """
        verdict = await self._verdicts.ask((sender, receiver))
        if verdict.wait_ms:
            raise RateLimited("too many messages", retry_after_ms=verdict.wait_ms)
        if verdict.missing & 1 and not await self._exists(sender, verdict.nonce):
            raise Unauthenticated("this account is deleted")
        if verdict.missing & 2 and not await self._exists(receiver, verdict.nonce):
            raise NotFound(f"no user {receiver}", field="receiver_id")

    async def _exists(self, user_id: int, nonce: str) -> bool:
        with reading():
            return await self._users.ask((user_id, nonce))

    async def _ask_redis(self, pairs: list[tuple[int, int]]) -> Sequence[_Verdict]:
        keys = [k for s, r in pairs for k in (f"im:limit:{s}", user_key(s), user_key(r))]
        # A nonce of its own for every batch: were it one for the process, a load from before a deletion could fill
        # a key under the nonce that a load from after it has placed.
        nonce = next(self._nonces)
        if self._resting():
            return [_Verdict(self._wait_without_redis(sender), 3, nonce) for sender, _ in pairs]
        try:
            answer = await self._admit(
                keys=keys, args=[nonce, self._interval_ms, BURST * self._interval_ms]
            )
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, limits are kept in this process: %s", error)
            self._resting_until = time.monotonic() + REST_S
            return [_Verdict(self._wait_without_redis(sender), 3, nonce) for sender, _ in pairs]
        return [_Verdict(answer[i], answer[i + 1], nonce) for i in range(0, len(answer), 2)]

    async def _ask_sql(self, loads: list[tuple[int, str]]) -> Sequence[bool]:
        wanted = {user_id for user_id, _ in loads}
        query = select(tables.user.c.id).where(
            tables.user.c.id.in_(wanted), tables.user.c.deleted_ms.is_(None)
        )
        async with self._engine.connect() as connection:
            found = set((await connection.execute(query)).scalars())
        fills = [(user_id, nonce) for user_id, nonce in loads if user_id in found]
        if fills and not self._resting():
            with contextlib.suppress(RedisError, OSError):  # only a copy
                await self._fill(
                    keys=[user_key(u) for u, _ in fills],
                    args=[KNOWN_FOR_S, *(n for _, n in fills)],
                )
        return [user_id in found for user_id, _ in loads]

    def _resting(self) -> bool:
        """Whether Redis has just failed: one that hangs must not hold up every command for its time-out."""
        return time.monotonic() < self._resting_until

    def _wait_without_redis(self, sender: int) -> int:
        now = time.monotonic() * 1000
        if len(self._own_limits) > 100_000:
            self._own_limits = {u: full for u, full in self._own_limits.items() if full > now}
        full = max(self._own_limits.get(sender, 0.0), now) + self._interval_ms
        wait = full - now - BURST * self._interval_ms
        if wait <= 0:
            self._own_limits[sender] = full
        return max(0, int(wait + 0.999))
