"""Writes the hot cache. Redis away costs nothing but the cache: what could not be written is removed later."""

import asyncio
import logging
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from redis.exceptions import RedisError

from functions.timeline.state import Accepted, Changed, Effect
from shared.hot import Batch, HotWriter

log = logging.getLogger(__name__)

PAUSE_S = 3.0
"""After a failure: a Redis that hangs must not hold up every batch for its time-out."""
MAX_STALE = 100_000
FORGET_AT_ONCE = 1_000


class Hot(Protocol):
    """The cache as the timeline sees it."""

    async def put(self, effects: Iterable[Effect]) -> None:
        """Brings in what a batch became, if it can. Never raises."""


class RedisHot:
    """`Hot` on Redis."""

    def __init__(self, writer: HotWriter) -> None:
        self._writer = writer
        self._resting_until = 0.0
        # Conversations of which the cache may lack messages or hold old ones, oldest first. Readers compare with SQL
        # and so notice; removing them spares every reader that detour. Beyond MAX_STALE only that remains.
        self._stale: dict[str, None] = {}

    async def put(self, effects: Iterable[Effect]) -> None:
        """See `Hot.put`."""
        batch, fresh = batches(effects)
        if not batch:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._resting_until:
            self._mark_stale(batch)
            return
        try:
            while self._stale:
                some = list(islice(self._stale, FORGET_AT_ONCE))
                await self._writer.forget(some)
                for conversation_id in some:
                    del self._stale[conversation_id]
            await self._writer.put(batch, fresh)
        except (RedisError, OSError) as error:
            log.warning("the hot cache is not reached, going on without: %s", error)
            self._resting_until = loop.time() + PAUSE_S
            self._mark_stale(batch)

    def _mark_stale(self, conversations: Iterable[str]) -> None:
        self._stale.update(dict.fromkeys(conversations))
        for oldest in list(islice(self._stale, max(0, len(self._stale) - MAX_STALE))):
            del self._stale[oldest]


def batches(effects: Iterable[Effect]) -> tuple[dict[str, Batch], list[tuple[int, str]]]:
    """What the cache is to hold by conversation, each message once and as it is at the end; and who has a new one."""
    found: dict[str, Batch] = {}
    fresh: list[tuple[int, str]] = []
    for effect in effects:
        if type(effect) is Accepted:
            before = after = effect.head.message_rev
            if effect.seq == 1 and effect.members is not None:
                fresh += [(user_id, effect.request.conversation_id) for user_id in effect.members]
        elif type(effect) is Changed:
            before, after = effect.before, effect.rev
        else:
            continue
        conversation_id = effect.request.conversation_id
        batch = found.get(conversation_id)
        if batch is None:
            batch = found[conversation_id] = Batch(before, after, {}, set())
        batch.after = after
        batch.messages[effect.seq] = effect.message
        if before != after:
            batch.changed.add(effect.seq)
    return found, fresh
