"""Copies of rights in Redis, and limits: asked for together, filled under nonces, removed by whoever changes them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import count, groupby
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from shared.adapters.sql import reading
from shared.coalesce import Coalescer
from shared.errors import UnknownOutcome
from shared.ids import random_token

log = logging.getLogger(__name__)

K = TypeVar("K")

KNOWN_FOR_S = 60
"""How long a copy lives if the change that should have removed it crashed in between."""
REST_S = 3.0
"""After a failure Redis is not asked for so long."""

# KEYS of a question: its limit, if it has one, then its copies. For each run of questions of one kind ARGV holds:
# interval and burst of its limit in ms (0: none), copies a question, number of questions. Answer of a question: ms to
# wait, or what the copies say, parted by `|`; one that is not known here is empty, and its key then holds the
# nonce (which starts with `?`). The limit is a GCRA: one number a key, the time at which its bucket is full again.
# All keys are read by one call, which costs Redis more than a key does (unpack takes 8,000; a question has 4, and a
# batch 500 questions). `full` holds what has changed since.
_ASK = """
local call, byte = redis.call, string.byte
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known, full, nonce, k, out = call('MGET', unpack(KEYS)), {}, ARGV[1], 1, {}
for run = 2, #ARGV, 4 do
  local interval, burst = tonumber(ARGV[run]), tonumber(ARGV[run + 1])
  local copies, life = tonumber(ARGV[run + 2]), tostring(burst + 1000)
  for _ = 1, tonumber(ARGV[run + 3]) do
    local wait = 0
    if interval > 0 then
      local key = KEYS[k]
      local at = math.max(full[key] or tonumber(known[k] or 0), now) + interval
      wait = at - now - burst
      if wait <= 0 then
        full[key] = at
        call('SET', key, at, 'PX', life)
      end
      k = k + 1
    end
    local last = k + copies - 1
    if wait > 0 then
      out[#out + 1] = math.ceil(wait)
    else
      for i = k, last do
        local value = known[i]
        if not value or byte(value) == 63 then
          call('SET', KEYS[i], nonce, 'PX', '10000')
          known[i] = ''
        end
      end
      out[#out + 1] = table.concat(known, '|', k, last)
    end
    k = last + 1
  end
end
return out
"""
# ARGV: life of a copy in s, then nonce and value of each key.
_FILL = """
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[2 * i] then
    redis.call('SET', KEYS[i], ARGV[2 * i + 1], 'EX', ARGV[1])
  end
end
"""


class Limit(NamedTuple):
    """So many at once (`burst`), and one more every `interval_ms`."""

    interval_ms: int
    burst: int


Question = tuple[Limit | None, int, tuple[str, ...]]
"""Limit, number of copies, and keys: of the limit if there is one, then of the copies."""


class Answer(NamedTuple):
    """`values` of the copies, parted by `|`, empty where not known; `nonce`: what then stands under their keys. To one
    who must wait they are of no meaning.
    """

    wait_ms: int
    values: bytes
    nonce: str


class Copies:
    """The Redis side of the gate. None of its methods raises: without Redis nothing is known and nothing is kept."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._ask = client.register_script(_ASK)
        self._fill = client.register_script(_FILL)
        self._nonces = (f"?{prefix}.{n}" for prefix in [random_token()] for n in count())
        self._own_limits: dict[str, float] = {}
        self._resting_until = 0.0
        self._answers = Coalescer(self._ask_redis)

    def ask(self, limit: Limit | None, limit_key: str, *copies: str) -> Awaitable[Answer]:
        """What Redis says, in one round trip with all that is asked at the same time."""
        keys = copies if limit is None else (limit_key, *copies)
        return self._answers.ask((limit, len(copies), keys))

    async def fill(self, values: Sequence[tuple[str, str, str]]) -> None:
        """Keeps (key, nonce, value) where the nonce still stands."""
        if values and not self._resting():
            with contextlib.suppress(RedisError, OSError):  # only copies
                await self._fill(
                    keys=[key for key, _, _ in values],
                    args=[KNOWN_FOR_S, *(text for _, *texts in values for text in texts)],
                )

    async def forget(self, *keys: str) -> bool:
        """Removes copies and the nonces of loads under way. False: Redis is not reached, they live on until they
        expire.
        """
        try:
            await self._redis.delete(*keys)
        except (RedisError, OSError) as error:
            log.warning(
                "redis is not reached, %s may stay for %d s: %s",
                ", ".join(keys),
                KNOWN_FOR_S,
                error,
            )
            return False
        return True

    async def withdraw(self, *keys: str) -> None:
        """`forget` for a right that was narrowed: the change may only be acknowledged when no copy grants it any more.

        Raises: UnknownOutcome if Redis is not reached: the change stands, but may hold everywhere only when the copies
        have expired. A repeat of the command tries again.
        """
        for pause_s in (0.2, 0.0):
            if await self.forget(*keys):
                return
            await asyncio.sleep(pause_s)
        raise UnknownOutcome(f"it holds everywhere within {KNOWN_FOR_S} s; repeat it to be sure")

    async def _ask_redis(self, questions: list[Question]) -> Sequence[Answer]:
        # A nonce of its own for every batch: were it one for the process, a load from before a change could fill
        # a key under the nonce that a load from after it has placed.
        nonce = next(self._nonces)
        if self._resting():
            return [self._without_redis(question, nonce) for question in questions]
        args: list[str | int] = [nonce]
        for (limit, copies), same in groupby(questions, key=itemgetter(0, 1)):
            rate = (0, 0) if limit is None else (limit.interval_ms, limit.burst * limit.interval_ms)
            args += (*rate, copies, len(list(same)))
        try:
            said = await self._ask(
                keys=[key for _, _, keys in questions for key in keys], args=args
            )
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, limits are kept in this process: %s", error)
            self._resting_until = time.monotonic() + REST_S
            return [self._without_redis(question, nonce) for question in questions]
        # Most say the same.
        answers = {
            one: Answer(0, one, nonce) if type(one) is bytes else Answer(one, b"", nonce)
            for one in set(said)
        }
        return [answers[one] for one in said]

    def _resting(self) -> bool:
        """Whether Redis has just failed: one that hangs must not hold up every command for its time-out."""
        return time.monotonic() < self._resting_until

    def _without_redis(self, question: Question, nonce: str) -> Answer:
        limit, copies, keys = question
        wait_ms = 0 if limit is None else self._wait_without_redis(limit, keys[0])
        return Answer(wait_ms, b"|" * (copies - 1), nonce)

    def _wait_without_redis(self, limit: Limit, key: str) -> int:
        now = time.monotonic() * 1000
        if len(self._own_limits) > 100_000:
            self._own_limits = {u: full for u, full in self._own_limits.items() if full > now}
        full = max(self._own_limits.get(key, 0.0), now) + limit.interval_ms
        wait = full - now - limit.burst * limit.interval_ms
        if wait <= 0:
            self._own_limits[key] = full
        return max(0, int(wait + 0.999))


class Loader(Generic[K]):
    """Reads from SQL what has no copy, all that is missing at the same time in one query, and keeps it."""

    def __init__(
        self,
        copies: Copies,
        key: Callable[[K], str],
        read: Callable[[Collection[K]], Awaitable[Mapping[K, str]]],
    ) -> None:
        """`read` gives values (without `|`, not starting with `?`) of those that exist: only they are kept."""
        self._copies = copies
        self._key = key
        self._read = read
        self._loads = Coalescer(self._load)

    async def load(self, what: K, nonce: str) -> str | None:
        """Its value, or None if it does not exist. Raises: Unavailable."""
        with reading():
            return await self._loads.ask((what, nonce))

    async def _load(self, loads: list[tuple[K, str]]) -> Sequence[str | None]:
        found = await self._read({what for what, _ in loads})
        await self._copies.fill(
            [(self._key(what), nonce, found[what]) for what, nonce in loads if what in found]
        )
        return [found.get(what) for what, _ in loads]
