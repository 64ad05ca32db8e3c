"""`message.history` and `message.sync`: which messages and changes are meant, and may the asker see them."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from functions.history.changes import ChangeReader, Changes
from functions.history.listing import Unstored
from functions.history.pages import MAX_ANSWER, Page
from functions.history.span import Bounds
from functions.history.view import Head, Mine, View, check_private, is_private_of
from schemas.messages import GetHistory, Position, ReadState, Sync
from schemas.types import Model
from shared.errors import BadRequest
from shared.function import Context, Outcome

MAX_POSITIONS = 500
AT_ONCE = 16
"""Conversations of one sync that are read at the same time."""


_NONE = msgspec.Raw(b"[]")


class PageReader(Protocol):
    """Reads pages by `seq`; see `pages.Pages`."""

    async def newest(self, user_id: int, conversation_id: str, bounds: Bounds) -> tuple[View, Page]:
        """A member's view, and the page that the bounds mean by it. Raises: Forbidden, NotMember, Unavailable."""

    async def after(self, conversation_id: str, bounds: Bounds, stored: View) -> tuple[View, Page]:
        """The same for a member whose view in SQL is known. Raises: Unavailable."""


class Conversations(Protocol):
    """Knows whose conversations there are."""

    async def of_user(
        self, user_id: int, after: str, upto: str | None, limit: int
    ) -> Sequence[tuple[str, View]]:
        """In order of their ids, after one id and up to another. Raises: Unavailable."""


class Deps(msgspec.Struct, frozen=True):
    """What `history` and `sync` need."""

    pages: PageReader
    conversations: Conversations
    changes: ChangeReader
    unstored: Unstored


class HistoryPage(Model):
    """schemas.messages.History with its messages still encoded: they pass through untouched."""

    messages: msgspec.Raw
    has_more: bool
    max_seq: int
    changes: msgspec.Raw
    max_rev: int
    upto_rev: int | None = None
    first_seq: int = 1
    reads: list[ReadState] = []


class SyncedPage(HistoryPage, kw_only=True):
    """schemas.messages.SyncedConversation, likewise."""

    conversation_id: str


class SyncedPages(Model):
    """schemas.messages.Synced, likewise."""

    conversations: list[SyncedPage]
    next: str | None


async def history(cmd: GetHistory, ctx: Context[Deps]) -> Outcome[HistoryPage]:
    """One page. Since `seq` has no gaps, the request's bounds and the newest `seq` name it exactly."""
    conversation_id = cmd.conversation_id
    check_private(ctx.user_id, conversation_id)
    bounds = Bounds(cmd.after_seq, cmd.before_seq, cmd.limit)
    view, page = await ctx.deps.pages.newest(ctx.user_id, conversation_id, bounds)
    low, newest = view.mine.low, view.mine.upto(view.head.seq)
    end = newest if cmd.before_seq is None else min(newest, cmd.before_seq - 1)
    more = page.span.first > low + 1 if page.span.newest_first else page.span.last < end
    reply = HistoryPage(
        _array(page.messages),
        more and end > low,
        newest,
        _NONE,
        view.head.rev,
        first_seq=low + 1,
    )
    if cmd.after_rev is not None:
        # After the messages: what changes in between is among the changes then.
        changes = await ctx.deps.changes.changes(
            conversation_id, view.mine, cmd.after_rev, cmd.limit
        )
        reads = await ctx.deps.changes.reads(ctx.user_id, [conversation_id])
        _add(reply, changes, reads.get(conversation_id, []))
    return Outcome(reply)


async def sync(cmd: Sync, ctx: Context[Deps]) -> Outcome[SyncedPages]:
    """One page of conversations with something new, each with its first messages and changes after the position."""
    known = {p.conversation_id: p for p in cmd.positions}
    # A device with more conversations than it may name names the next ones in order: those behind the last named
    # belong to the next page, else they would be sent from their beginning.
    upto = max(known) if len(known) >= MAX_POSITIONS else None
    after = cmd.cursor or ""
    if after and not after.startswith(("p_", "g_")):
        raise BadRequest("no cursor of message.sync", field="cursor")
    found = await _conversations(ctx.deps, ctx.user_id, after, upto, cmd.limit + 1)
    cursor = found[cmd.limit - 1][0] if len(found) > cmd.limit else upto
    new = [
        (conversation_id, view, known.get(conversation_id))
        for conversation_id, view, newest in found[: cmd.limit]
        if _is_behind(known.get(conversation_id), view.at_least(newest))
    ]
    reads = await ctx.deps.changes.reads(
        ctx.user_id, [conversation_id for conversation_id, *_ in new]
    )
    synced: list[SyncedPage] = []
    size = 0
    for i in range(0, len(new), AT_ONCE):
        for page in await asyncio.gather(
            *(_catch_up(ctx.deps, *which, cmd.limit) for which in new[i : i + AT_ONCE])
        ):
            size += _size(page.messages) + _size(page.changes)
            if synced and size > MAX_ANSWER:
                return Outcome(SyncedPages(synced, synced[-1].conversation_id))
            page.reads = reads.get(page.conversation_id, [])
            synced.append(page)
    return Outcome(SyncedPages(synced, cursor))


async def _conversations(
    deps: Deps, user_id: int, after: str, upto: str | None, limit: int
) -> list[tuple[str, View, int]]:
    """As `Conversations.of_user`, with those begun a moment ago, and the newest `seq` that is acked.

    A device asks just when it begins to get pushes: those of what is not stored yet may be over.
    """
    views = dict(await deps.conversations.of_user(user_id, after, upto, limit))
    fresh, tails = await deps.unstored.read(user_id, {c: v.head.seq for c, v in views.items()})
    begun = {
        c: View(Head(), Mine())
        for c in fresh or ()
        if c not in views and after < c and (upto is None or c <= upto)
        if is_private_of(user_id, c)
    }
    if begun:
        views |= begun
        _, more = await deps.unstored.read(user_id, dict.fromkeys(begun, 0))
        tails |= more
    newest = {c: tail[-1][0].seq for c, tail in tails.items() if tail}
    return [(c, views[c], newest.get(c, 0)) for c in sorted(views)[:limit]]


def _is_behind(position: Position | None, view: View) -> bool:
    """Whether a device at this position has something to get."""
    head, mine = view
    if position is None:
        return head.seq > 0
    return (
        mine.upto(head.seq) > position.after_seq
        or head.rev > position.after_rev
        or (position.read_seq is not None and mine.read_seq > position.read_seq)
    )


async def _catch_up(
    deps: Deps, conversation_id: str, view: View, position: Position | None, limit: int
) -> SyncedPage:
    """A conversation from a position on. Without one it begins at its start, and then nothing is known that could have
    changed.
    """
    after_seq = position.after_seq if position else 0
    (head, mine), page = await deps.pages.after(
        conversation_id, Bounds(after_seq, None, limit), view
    )
    newest = mine.upto(head.seq)
    reply = SyncedPage(
        _array(page.messages),
        page.span.last < newest,
        newest,
        _NONE,
        head.rev,
        upto_rev=head.rev,
        first_seq=mine.low + 1,
        conversation_id=conversation_id,
    )
    if position is not None and head.rev > position.after_rev:
        _add(
            reply, await deps.changes.changes(conversation_id, mine, position.after_rev, limit), []
        )
    return reply


def _add(reply: HistoryPage, changes: Changes, reads: list[ReadState]) -> None:
    reply.changes = _array(b",".join(changes.messages))
    reply.upto_rev = changes.upto
    reply.max_rev = max(reply.max_rev, changes.rev)
    reply.has_more = reply.has_more or changes.upto < changes.rev
    reply.reads = reads


def _array(messages: bytes) -> msgspec.Raw:
    return msgspec.Raw(b"[%b]" % messages)


def _size(messages: msgspec.Raw) -> int:
    return memoryview(messages).nbytes
