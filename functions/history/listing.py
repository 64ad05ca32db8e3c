"""`conversation.list`, `update` and `clear`: a user's conversations, with counts that are right on all his devices."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from functions.history.tail import Cached, Tail
from functions.history.view import Head, Mine, check_private, is_private_of, not_mine
from schemas.conversations import (
    ClearConversation,
    ConversationState,
    ListConversations,
    UpdateConversation,
)
from schemas.events import ConversationChanged
from schemas.types import Model
from shared.errors import BadRequest, Unavailable
from shared.function import Context, Outcome, Push, to_user
from shared.patience import until_stored


class Place(NamedTuple):
    """Where a conversation stands in the list, which goes from great to small."""

    pinned: int
    newest_ms: int
    conversation_id: str


class Entry(NamedTuple):
    """A conversation. `place`: as it is stored, all 0 if it is not.

    last: JSON of the newest message there is for the user, b"" if there is none. fresh_ms: when the newest was sent if
    that is not stored yet.
    """

    place: Place
    head: Head
    mine: Mine
    muted: bool = False
    draft: str | None = None
    unread: int = 0
    mentions: int = 0
    last: bytes = b""
    fresh_ms: int = 0

    @property
    def standing(self) -> tuple[int, int]:
        """From great to small in a page."""
        return self.place.pinned, max(self.place.newest_ms, self.fresh_ms)


class Shelf(Protocol):
    """The list in SQL. Everything raises Unavailable."""

    async def page(self, user_id: int, after: Place | None, limit: int) -> Sequence[Entry]:
        """The next conversations."""

    async def some(self, user_id: int, conversations: Sequence[str]) -> Sequence[Entry]:
        """Those of these that are stored, in any order."""

    async def put(self, user_id: int, conversation_id: str, values: Mapping[str, Any]) -> None:
        """Sets columns of a row that is there. Raises: UnknownOutcome too."""

    async def clear(self, user_id: int, conversation_id: str, upto_seq: int) -> None:
        """Moves `cleared_seq`, only forward; as `put`."""


class Unstored(Protocol):
    """What is acked and not stored yet."""

    async def read(
        self, user_id: int, wanted: Mapping[str, int]
    ) -> tuple[frozenset[str] | None, dict[str, Tail]]:
        """The user's newest conversations, None if nobody knows, and the messages of the wanted ones after a `seq`.

        Never raises.
        """


class Deps(msgspec.Struct, frozen=True):
    """What the list needs."""

    shelf: Shelf
    unstored: Unstored


class SummaryPage(ConversationState, kw_only=True):
    """schemas.conversations.ConversationSummary with its message still encoded."""

    last_message: msgspec.Raw | None


class ConversationsPage(Model):
    """schemas.conversations.Conversations, likewise."""

    conversations: list[SummaryPage]
    next: str | None


class HasDeps(Protocol):
    """Deps of the whole function."""

    @property
    def listing(self) -> Deps: ...


async def list_conversations(
    cmd: ListConversations, ctx: Context[HasDeps]
) -> Outcome[ConversationsPage]:
    """One page. Conversations begun a moment ago, which are not stored yet, stand on the first."""
    deps = ctx.deps.listing
    after = None if cmd.cursor is None else _place(cmd.cursor)
    stored = list(await deps.shelf.page(ctx.user_id, after, cmd.limit + 1))
    following = stored[cmd.limit - 1].place if len(stored) > cmd.limit else None
    page = await _with_unstored(deps, ctx.user_id, stored[: cmd.limit], first=after is None)
    stored = [entry for entry in page if entry.place.newest_ms]
    # What is not stored yet has no place to go on from: stored ones make room for it, all but one.
    room = max(1, cmd.limit - (len(page) - len(stored)))
    if len(stored) > room:
        following = stored[room - 1].place
        page = [e for e in page if not e.place.newest_ms or e in stored[:room]]
    page.sort(key=lambda entry: entry.standing, reverse=True)
    return Outcome(
        ConversationsPage(
            [_summary(entry) for entry in page],
            None if following is None else ".".join(map(str, following)),
        )
    )


async def update(cmd: UpdateConversation, ctx: Context[HasDeps]) -> Outcome[ConversationState]:
    """Sets what is present; all own devices hear of it."""
    check_private(ctx.user_id, cmd.conversation_id)
    draft = None if cmd.draft == "" else cmd.draft
    values: dict[str, Any] = {
        name: value
        for name, value in (("pinned", cmd.pinned), ("muted", cmd.muted), ("draft", draft))
        if value is not msgspec.UNSET
    }
    if not values:
        raise BadRequest("nothing to set: name pinned, muted or draft")
    entry = await _stored(ctx, cmd.conversation_id)
    await ctx.deps.listing.shelf.put(ctx.user_id, cmd.conversation_id, values)
    return await _changed(ctx, entry.place.conversation_id)


async def clear(cmd: ClearConversation, ctx: Context[HasDeps]) -> Outcome[ConversationState]:
    """Removes messages for the asker alone."""
    check_private(ctx.user_id, cmd.conversation_id)
    deps = ctx.deps.listing
    await _stored(ctx, cmd.conversation_id)
    (entry,) = await _entries(ctx, cmd.conversation_id)
    newest = entry.mine.upto(entry.head.seq)
    upto = newest if cmd.upto_seq is None else min(cmd.upto_seq, newest)
    await deps.shelf.clear(ctx.user_id, cmd.conversation_id, upto)
    return await _changed(ctx, cmd.conversation_id)


async def _stored(ctx: Context[HasDeps], conversation_id: str) -> Entry:
    """The stored entry; of a conversation begun a moment ago, when it is there.

    Raises: Forbidden, NotMember, Unavailable.
    """
    deps = ctx.deps.listing

    async def look() -> Entry | None:
        if found := await deps.shelf.some(ctx.user_id, [conversation_id]):
            return found[0]
        fresh, _ = await deps.unstored.read(ctx.user_id, {})
        if fresh is not None and conversation_id not in fresh:
            raise not_mine(conversation_id)
        return None

    entry = await until_stored(look)
    if entry is None:
        raise Unavailable("this conversation may be on its way into the archive")
    return entry


async def _entries(ctx: Context[HasDeps], conversation_id: str) -> list[Entry]:
    deps = ctx.deps.listing
    stored = await deps.shelf.some(ctx.user_id, [conversation_id])
    _, entries = await _grown(deps, ctx.user_id, stored)
    return entries


async def _changed(ctx: Context[HasDeps], conversation_id: str) -> Outcome[ConversationState]:
    """The conversation as it is now, for the asker and all his devices."""
    (entry,) = await _entries(ctx, conversation_id)
    state = _state(entry)
    pushes: tuple[Push, ...] = (to_user(ctx.user_id, ConversationChanged(**state)),)
    return Outcome(ConversationState(**state), pushes=pushes)


async def _with_unstored(
    deps: Deps, user_id: int, stored: Sequence[Entry], *, first: bool
) -> list[Entry]:
    """Adds what is not stored yet: to the counts, and on the first page conversations that are not there at all."""
    fresh, entries = await _grown(deps, user_id, stored)
    unseen = (fresh or frozenset()) - {e.place.conversation_id for e in stored}
    if not first or not unseen:
        return entries
    late = await deps.shelf.some(user_id, sorted(unseen))
    elsewhere = {e.place.conversation_id for e in late}
    begun = [c for c in unseen if c not in elsewhere and is_private_of(user_id, c)]
    late = [
        # Stored since the page was read; what stands behind the page's end belongs to a later one.
        *(e for e in late if not stored or e.place[1:] > stored[-1].place[1:]),
        *(Entry(Place(0, 0, c), Head(), Mine()) for c in begun),
    ]
    _, late = await _grown(deps, user_id, late)
    entries += [e for e in late if e.head.seq]
    entries.sort(key=lambda e: e.place, reverse=True)
    return entries


async def _grown(
    deps: Deps, user_id: int, entries: Sequence[Entry]
) -> tuple[frozenset[str] | None, list[Entry]]:
    """The user's newest conversations, and the entries with the messages that the cache has beyond them."""
    wanted = {e.place.conversation_id: e.head.seq for e in entries if e.mine.until_seq is None}
    fresh, tails = await deps.unstored.read(user_id, wanted)
    return fresh, [_longer(e, tails.get(e.place.conversation_id, ()), user_id) for e in entries]


def _longer(entry: Entry, tail: Tail, user_id: int) -> Entry:
    """The entry with the messages behind its last."""
    unread, mentions = entry.unread, entry.mentions
    seen = max(entry.mine.read_seq, entry.mine.low)
    seq, last, ms = entry.head.seq, entry.last, entry.fresh_ms
    for message, encoded in tail:
        seq, ms = message.seq, message.timestamp
        last = encoded if message.seq > entry.mine.low else last
        if message.seq > seen and _counts(message, user_id):
            unread += 1
            mentions += user_id in message.mentions or "all" in message.mentions
    head = entry.head._replace(seq=seq)
    return entry._replace(head=head, unread=unread, mentions=mentions, last=last, fresh_ms=ms)


def _counts(message: Cached, user_id: int) -> bool:
    return message.sender_id != user_id and message.status == 0 and message.msg_type != 0


def _state(entry: Entry) -> dict[str, Any]:
    return {
        "conversation_id": entry.place.conversation_id,
        "unread": entry.unread,
        "mentions": entry.mentions,
        "max_seq": entry.mine.upto(entry.head.seq),
        "max_rev": entry.head.rev,
        "read_seq": entry.mine.read_seq,
        "cleared_seq": entry.mine.cleared_seq,
        "pinned": bool(entry.place.pinned),
        "muted": entry.muted,
        "draft": entry.draft,
    }


def _summary(entry: Entry) -> SummaryPage:
    return SummaryPage(
        **_state(entry), last_message=msgspec.Raw(entry.last) if entry.last else None
    )


def _place(cursor: str) -> Place:
    pinned, _, rest = cursor.partition(".")
    ms, _, conversation_id = rest.partition(".")
    if not (pinned in ("0", "1") and ms.isdecimal() and len(ms) < 17 and conversation_id):
        raise BadRequest("no cursor of this list", field="cursor")
    return Place(int(pinned), int(ms), conversation_id)
