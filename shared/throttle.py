"""Slows down who guesses passwords: ten tries in a quarter of an hour, counted before any hashing.

The count is in Redis. Without it each process counts for itself, which lets through a few more
tries, never unlimited ones.
"""

import hashlib
import logging
import time
from collections.abc import Callable

import redis.asyncio
from redis.exceptions import RedisError

from shared.errors import RateLimited

log = logging.getLogger(__name__)

TRIES = 10
WINDOW_MS = 15 * 60 * 1000
MAX_OWN = 10_000


class Throttle:
    """Counts tries by subject (`login:<name>`, `password:<user id>`) until one succeeds."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`enabled` False (IM_RATE_LIMITS=off) lets everything through."""
        self._redis = client
        self._enabled = enabled
        self._clock = clock
        self._own: dict[str, tuple[int, float]] = {}

    async def take(self, subject: str) -> None:
        """Counts a try before it is made, so that tries made at once count too.

        Raises: RateLimited, with the time until the next one passes.
        """
        if not self._enabled:
            return
        key = _key(subject)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(key, 0, px=WINDOW_MS, nx=True)
                pipe.incr(key)
                pipe.pttl(key)
                _, tries, left_ms = await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, tries are counted in this process: %s", error)
            tries, left_ms = self._take_own(key)
        if tries > TRIES:
            raise RateLimited("too many wrong passwords; wait", retry_after_ms=max(1, left_ms))

    async def clear(self, subject: str) -> None:
        """Forgets the tries after one that succeeded."""
        if not self._enabled:
            return
        key = _key(subject)
        self._own.pop(key, None)
        try:
            await self._redis.delete(key)
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, tries stay counted: %s", error)

    def _take_own(self, key: str) -> tuple[int, int]:
        now = self._clock() * 1000
        tries, until = self._own.pop(key, (0, 0.0))
        if until <= now:
            tries, until = 0, now + WINDOW_MS
        if len(self._own) >= MAX_OWN:
            del self._own[next(iter(self._own))]  # the one not tried for longest
        self._own[key] = tries + 1, until
        return tries + 1, int(until - now)


def _key(subject: str) -> str:
    """A name may hold any character and reveals who logs in: the key has neither."""
    return f"im:tries:{hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()}"
