"""Pages out of the hot cache if it holds them whole, otherwise out of the archive, which then repairs the cache."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol

from functions.history.handler import MAX_ANSWER, Head, Page
from functions.history.span import Bounds, Span, span_of
from shared.errors import Unavailable


class Window(NamedTuple):
    """What the cache has: its newest `seq`, and the messages that the bounds mean by that; none unless it has all."""

    newest: int
    messages: Sequence[bytes]


class Cache(Protocol):
    """The newest messages of conversations, maybe stale, maybe empty; never an error."""

    def read(self, conversation_id: str, bounds: Bounds) -> Awaitable[Window]:
        """What it has of a page; under way as soon as this is called."""

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes]) -> None:
        """Adds what was read from the archive, never over something newer."""


class Archive(Protocol):
    """All messages, in SQL."""

    def head(self, conversation_id: str) -> Awaitable[Head]:
        """The newest numbers that are stored; under way as soon as this is called. Raises: Unavailable."""

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

    async def newest(self, conversation_id: str, bounds: Bounds) -> tuple[Head, Page]:
        """See `handler.PageReader.newest`.

        The cache may be ahead of the archive, since messages are cached before they are stored; where it is behind it
        has lost something, and only the archive's numbers count.
        """
        in_cache = self._cache.read(conversation_id, bounds)
        in_archive = self._archive.head(conversation_id)
        window, stored = await in_cache, await in_archive
        head = Head(max(stored.seq, window.newest), stored.rev)
        return head, await self._page(conversation_id, bounds, head.seq, window, stored.seq)

    async def after(self, conversation_id: str, bounds: Bounds, newest: int) -> Page:
        """See `handler.PageReader.after`."""
        window = await self._cache.read(conversation_id, bounds)
        return await self._page(conversation_id, bounds, newest, window, newest)

    async def _page(
        self, conversation_id: str, bounds: Bounds, newest: int, window: Window, stored: int
    ) -> Page:
        span = span_of(bounds, newest)
        if span.last < span.first:
            return Page([], span)
        found: Sequence[tuple[int, bytes]]
        if window.messages and span_of(bounds, window.newest) == span:
            self.hits += 1
            if sum(map(len, window.messages)) <= MAX_ANSWER:
                return Page(list(window.messages), span)
            found = list(enumerate(window.messages, span.first))
        else:
            self.misses += 1
            found = await self._archive.read(conversation_id, span.first, span.last)
            if span.newest_first and (not found or found[-1][0] < span.last):
                # The newest are on their way into the archive, and the cache has lost some of them: the page is as of
                # what is stored, and `max_seq` says that there is more.
                if not found and not stored:
                    raise Unavailable("the first messages are on their way into the archive")
                span = span_of(bounds, found[-1][0] if found else stored)
                found = await self._archive.read(conversation_id, span.first, span.last)
            await self._cache.repair(conversation_id, dict(found))
        return _cut(found, span.newest_first)


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
