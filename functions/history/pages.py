"""Pages out of the hot cache if it holds them whole, otherwise out of the archive, which then repairs the cache."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from functions.history.span import Bounds, Span, span_of
from functions.history.view import Head, View, known
from shared.errors import Unavailable
from shared.hot import KEPT
from shared.patience import until_stored

MAX_ANSWER = 512 << 10
"""Most bytes of messages in one answer: NATS carries 1 MiB."""


Messages = Sequence[tuple[int, bytes]]
"""(seq, message as JSON), ascending."""

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Page(NamedTuple):
    """Messages as JSON with commas between them, ascending and without gaps."""

    messages: bytes
    span: Span


class Window(NamedTuple):
    """What the cache has: its newest `seq`, the messages that the bounds mean by that (none unless it has all) as in a
    `Page`, and the `rev` up to which these are right.
    """

    newest: int
    messages: bytes
    rev: int = 0


class Cache(Protocol):
    """The newest messages of conversations, maybe stale, maybe empty; never an error."""

    def read(self, conversation_id: str, bounds: Bounds) -> Awaitable[Window]:
        """What it has of a page; under way as soon as this is called."""

    async def repair(self, conversation_id: str, messages: Mapping[int, bytes], rev: int) -> None:
        """Adds what was read from the archive as of `rev` or later, never over something newer."""


class Archive(Protocol):
    """All messages, in SQL."""

    def view(self, user_id: int, conversation_id: str) -> Awaitable[View | None]:
        """See `view.Views`; under way as soon as this is called. Raises: Unavailable."""

    def read(self, conversation_id: str, first: int, last: int) -> Awaitable[Messages]:
        """What is stored between two `seq`, both included. Raises: Unavailable."""

    async def as_left(self, conversation_id: str, until_seq: int, found: Messages) -> Messages:
        """Messages of the archive as they were when the message `until_seq` came. Raises: Unavailable."""


class Pages:
    """Reads pages by `seq`; fewer messages than asked for if they would be too large for one answer.

    `hits` and `misses` count pages.
    """

    def __init__(self, cache: Cache, archive: Archive) -> None:
        self.hits = 0
        self.misses = 0
        self._cache = cache
        self._archive = archive

    async def newest(self, user_id: int, conversation_id: str, bounds: Bounds) -> tuple[View, Page]:
        """A member's view, with the newest numbers known, and the page that the bounds mean by them.

        The cache may be ahead of the archive, since messages are cached before they are stored; where it is behind it
        has lost something, and only the archive's numbers count. Who asks for what is behind both, but not far, has got
        it by push while the cache was away, and it is waited for.

        Raises: Forbidden or NotMember if it is not his; Unavailable.
        """
        in_cache = self._cache.read(conversation_id, bounds)
        in_archive = self._archive.view(user_id, conversation_id)
        window, found = await in_cache, await in_archive
        stored, mine = known(found, conversation_id)
        if 0 < bounds.seen - max(stored.seq, window.newest) <= KEPT and mine.until_seq is None:
            found = await self._caught_up(user_id, conversation_id, bounds.seen)
            stored, mine = known(found, conversation_id)
        view = View(stored, mine).at_least(window.newest)
        narrow = mine.narrow(bounds)
        if narrow != bounds and mine.until_seq is None:
            window = await self._cache.read(conversation_id, narrow)
        return view, await self._page(conversation_id, narrow, view, window, stored.seq)

    async def after(self, conversation_id: str, bounds: Bounds, stored: View) -> tuple[View, Page]:
        """The same for a member whose view in SQL is known. Raises: Unavailable."""
        bounds = stored.mine.narrow(bounds)
        window = await self._cache.read(conversation_id, bounds)
        view = stored.at_least(window.newest)
        return view, await self._page(conversation_id, bounds, view, window, stored.head.seq)

    async def _page(
        self, conversation_id: str, bounds: Bounds, view: View, window: Window, stored: int
    ) -> Page:
        span = span_of(bounds, view.head.seq, view.mine.low)
        if span.last < span.first:
            return Page(b"", span)
        # Not for one who has left: the cache may hold an edit of which the archive does not know yet what was before.
        if view.mine.until_seq is None and (page := _held(window, bounds, span, view.head)):
            self.hits += 1
            return page
        self.misses += 1
        found = await self._stored(conversation_id, span, stored)
        if found is None:
            raise Unavailable("these messages are on their way into the archive")
        oldest = view.head.seq - KEPT  # what is older the cache would not keep
        await self._cache.repair(
            conversation_id, {s: m for s, m in found if s > oldest}, view.head.message_rev
        )
        if view.mine.until_seq is not None:
            found = await self._archive.as_left(conversation_id, view.mine.until_seq, found)
        return _cut(found, span.newest_first)

    async def _caught_up(self, user_id: int, conversation_id: str, seq: int) -> View | None:
        """The view as soon as the archive knows of a message, or as it is when that does not happen in time."""
        view = None

        async def look() -> View | None:
            nonlocal view
            view = await self._archive.view(user_id, conversation_id)
            return view if view is not None and view.head.seq >= seq else None

        return await until_stored(look) or view

    async def _stored(self, conversation_id: str, span: Span, stored: int) -> Messages | None:
        """What the archive has of a span, from its near end on; None if that end does not get there in time.

        Acked messages reach the archive a moment later. A page without its near end would look as if there was nothing
        (forward), or make a reader who pages backward miss them for good.
        """
        near = span.last if span.newest_first else span.first

        async def look() -> Messages | None:
            found = await self._archive.read(conversation_id, span.first, span.last)
            there = near <= stored or any(seq == near for seq, _ in found)
            return found if there else None

        return await until_stored(look)


def _held(window: Window, bounds: Bounds, span: Span, head: Head) -> Page | None:
    """The page out of the cache, if it is there and no older than `head`."""
    held = span_of(bounds, window.newest)
    if not window.messages or window.rev < head.message_rev or held.last != span.last:
        return None
    if held == span and len(window.messages) <= MAX_ANSWER:
        return Page(window.messages, span)
    messages = enumerate(_split(b"[%b]" % window.messages), held.first)
    return _cut([(seq, bytes(m)) for seq, m in messages if seq >= span.first], span.newest_first)


def _cut(found: Messages, newest_first: bool) -> Page:
    """Keeps what follows on one another from the near end on, and fits into one answer.

    A page never skips over a hole. There is none but that of a message that could not be stored, after an alarm.
    """
    kept: list[tuple[int, bytes]] = []
    size = 0
    for seq, message in reversed(found) if newest_first else found:
        size += len(message)
        if kept and (abs(seq - kept[-1][0]) != 1 or size > MAX_ANSWER):
            break
        kept.append((seq, message))
    if not kept:
        return Page(b"", Span(1, 0, newest_first))
    kept.sort()
    return Page(
        b",".join(message for _, message in kept), Span(kept[0][0], kept[-1][0], newest_first)
    )
