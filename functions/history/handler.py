"""`message.history` and `message.sync`: which span of `seq` is meant, and may the asker see it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from functions.history.span import Bounds, Span
from schemas.messages import GetHistory, Sync
from schemas.types import Model
from shared.errors import Forbidden
from shared.function import Context, Outcome
from shared.ids import members_of_private

MAX_POSITIONS = 500


class Head(NamedTuple):
    """A conversation's newest numbers; 0, 0 if it has no message yet."""

    seq: int
    rev: int


class Page(NamedTuple):
    """Messages as JSON, ascending and without gaps."""

    messages: list[bytes]
    span: Span


class PageReader(Protocol):
    """Reads pages by `seq`; fewer messages than asked for if they would be too large for one answer."""

    async def newest(self, conversation_id: str, bounds: Bounds) -> tuple[Head, Page]:
        """The newest numbers, and the page that the bounds mean by them. Raises: Unavailable."""

    async def after(self, conversation_id: str, bounds: Bounds, newest: int) -> Page:
        """The page that the bounds mean in a conversation whose newest message is known. Raises: Unavailable."""


class Conversations(Protocol):
    """Knows whose conversations there are."""

    async def of_user(
        self, user_id: int, after: str, upto: str | None, limit: int
    ) -> Sequence[tuple[str, int, int]]:
        """(conversation_id, max_seq, max_rev) in order of their ids, after one id and up to another.

        Raises: Unavailable.
        """


class Deps(msgspec.Struct, frozen=True):
    """What `history` needs."""

    pages: PageReader
    conversations: Conversations


class HistoryPage(Model):
    """schemas.messages.History with its messages still encoded: they pass through untouched."""

    messages: list[msgspec.Raw]
    has_more: bool
    max_seq: int
    changes: list[msgspec.Raw]
    max_rev: int


class SyncedPage(HistoryPage, kw_only=True):
    """schemas.messages.SyncedConversation, likewise."""

    conversation_id: str


class SyncedPages(Model):
    """schemas.messages.Synced, likewise."""

    conversations: list[SyncedPage]
    next: str | None


async def history(cmd: GetHistory, ctx: Context[Deps]) -> Outcome[HistoryPage]:
    """One page. Since `seq` has no gaps, the request's bounds and the newest `seq` name it exactly."""
    pair = members_of_private(cmd.conversation_id)
    if pair is None or ctx.user_id not in pair:
        raise Forbidden("not your conversation", field="conversation_id")
    bounds = Bounds(cmd.after_seq, cmd.before_seq, cmd.limit)
    head, page = await ctx.deps.pages.newest(cmd.conversation_id, bounds)
    end = head.seq if cmd.before_seq is None else min(head.seq, cmd.before_seq - 1)
    more = page.span.first > 1 if page.span.newest_first else page.span.last < end
    return Outcome(HistoryPage(_raw(page), more and end > 0, head.seq, [], head.rev))


async def sync(cmd: Sync, ctx: Context[Deps]) -> Outcome[SyncedPages]:
    """One page of conversations with something new, each with its first messages after the device's position."""
    known = {p.conversation_id: p for p in cmd.positions}
    after = cmd.cursor or ""
    # A device with more conversations than it may name names the next ones in order: those behind the last named
    # belong to the next page, else they would be sent from their beginning.
    upto = max(known) if len(known) >= MAX_POSITIONS else None
    found = await ctx.deps.conversations.of_user(ctx.user_id, after, upto, cmd.limit + 1)
    synced: list[SyncedPage] = []
    size, cursor = 0, after
    for conversation_id, seq, rev in found[: cmd.limit]:
        position = known.get(conversation_id)
        after_seq = position.after_seq if position else 0
        after_rev = position.after_rev if position else 0
        if seq > after_seq or rev > after_rev:
            page = await ctx.deps.pages.after(
                conversation_id, Bounds(after_seq, None, cmd.limit), seq
            )
            size += sum(map(len, page.messages))
            if synced and size > MAX_ANSWER:
                return Outcome(SyncedPages(synced, cursor))
            synced.append(
                SyncedPage(
                    _raw(page),
                    page.span.last < seq,
                    seq,
                    [],
                    rev,
                    conversation_id=conversation_id,
                )
            )
        cursor = conversation_id
    if len(found) <= cmd.limit:
        return Outcome(SyncedPages(synced, upto))
    return Outcome(SyncedPages(synced, cursor))


MAX_ANSWER = 512 << 10
"""Most bytes of messages in one answer: NATS carries 1 MiB."""


def _raw(page: Page) -> list[msgspec.Raw]:
    return [msgspec.Raw(m) for m in page.messages]
