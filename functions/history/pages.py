"""Pages out of the hot cache if it holds them whole, otherwise out of the archive, which then repairs the cache."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from functions.history.handler import MAX_ANSWER, Head, Page, Span


class Cache(Protocol):
    """The newest messages of conversations, maybe stale, maybe empty; never an error."""

    async def read(self, conversation_id: str, first: int, last: int) -> Sequence[bytes]:
        """The messages between two `seq`, both included, ascending; empty unless it holds all."""

    async def newest(self, conversation_id: str) -> int:
        """The newest `seq` that it has, 0 if none."""

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes]) -> None:
        """Adds what was read from the archive, never over something newer."""


class Archive(Protocol):
    """All messages, in SQL."""

    async def head(self, conversation_id: str) -> Head:
        """The newest numbers that are stored. Raises: Unavailable."""

    async def read(
        self, conversation_id: str, first: int, last: int
    ) -> Sequence[tuple[int, bytes]]:
        """(seq, message) between two `seq`, both included, ascending. Raises: Unavailable."""


class Pages:
    """Implements `handler.PageReader`. `hits` and `misses` count pages."""

    def __init__(self, cache: Cache, archive: Archive) -> None:
        self.hits = 0
        self.misses = 0
        self._cache = cache
        self._archive = archive

    async def head(self, conversation_id: str) -> Head:
        """The archive's head, or the cache's where that is ahead: messages are cached before they are stored."""
        stored = await self._archive.head(conversation_id)
        return Head(max(stored.seq, await self._cache.newest(conversation_id)), stored.rev)

    async def page(self, conversation_id: str, span: Span) -> Page:
        """See `handler.PageReader.page`."""
        first, last, newest_first = span
        if last < first:
            return Page([], span)
        found: Sequence[tuple[int, bytes]]
        if cached := await self._cache.read(conversation_id, first, last):
            self.hits += 1
            found = list(enumerate(cached, first))
        else:
            self.misses += 1
            found = await self._archive.read(conversation_id, first, last)
            await self._cache.repair(conversation_id, dict(found))
        return _cut(found, newest_first)


def _cut(found: Sequence[tuple[int, bytes]], newest_first: bool) -> Page:
    """Keeps what follows on one another from the near end on, and fits into one answer.

    A hole can only be there for the moment in which the newest messages are on their way into the archive while the
    cache is away; a page never skips over one.
    """
    kept: list[tuple[int, bytes]] = []
    size = 0
    for seq, message in reversed(found) if newest_first else found:
        size += len(message)
        if kept and (abs(seq - kept[-1][0]) != 1 or size > MAX_ANSWER):
            break
        kept.append((seq, message))
    if newest_first:
        kept.reverse()
    if not kept:
        return Page([], Span(1, 0, newest_first))
    return Page([message for _, message in kept], Span(kept[0][0], kept[-1][0], newest_first))
