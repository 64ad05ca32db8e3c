"""Changes of messages: is it there for the asker, may he, is it well-formed; then it is a record for the log.

What depends on the order of things (too late for a recall, recalled meanwhile, nothing to change) the timeline decides.
"""

from typing import Protocol

import msgspec

from schemas.messages import (
    Changed,
    EditMessage,
    PinMessage,
    ReactToMessage,
    RecallMessage,
)
from schemas.records import EditRequested, PinRequested, ReactRequested, RecallRequested
from shared.contents import check_content
from shared.errors import Forbidden, NotFound
from shared.function import Context, Outcome
from shared.gate import MESSAGES
from shared.ids import members_of_private
from shared.lookup import MessageRow

RECALLED = 1
SYSTEM = 0
"""`msg_type` of the server's own messages."""


class Finder(Protocol):
    """Finds messages."""

    async def find(self, msg_id: str) -> MessageRow | None:
        """The message, recalled or not; None if there is none. Raises: Unavailable."""


class Rights(Protocol):
    """Says whether a user may write to another one; see `shared.gate.Gate`."""

    async def private(self, sender: int, receiver: int) -> None:
        """Raises: RateLimited, Unauthenticated, NotFound, Blocked, NotFriend, Unavailable."""

    async def limit(self, name: str, user_id: int) -> None:
        """Raises: RateLimited."""


class Deps(msgspec.Struct, frozen=True):
    """What the commands need. `window_ms`: how long after sending a message may be recalled by its sender."""

    messages: Finder
    gate: Rights
    window_ms: int


async def recall(cmd: RecallMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Takes a message back. One may do so even where one may no longer write."""
    row = await _seen(cmd.msg_id, ctx)
    await ctx.deps.gate.limit(MESSAGES, ctx.user_id)
    if row.sender_id != ctx.user_id:
        raise Forbidden("not your message", field="msg_id")
    request = RecallRequested(
        conversation_id=row.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        msg_id=cmd.msg_id,
        window_ms=ctx.deps.window_ms,
    )
    return Outcome(None, requests=(request,))


async def edit(cmd: EditMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Replaces one's own content, which must suit the message's type."""
    row = await _seen(cmd.msg_id, ctx)
    if row.sender_id != ctx.user_id or row.msg_type == SYSTEM:
        raise Forbidden("not your message", field="msg_id")
    await _may_write(row, ctx)
    if (
        row.status != RECALLED
    ):  # of a recalled one no file is known any more; the timeline refuses it
        check_content(row.msg_type, cmd.content, row.file_id)
    request = EditRequested(
        conversation_id=row.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        msg_id=cmd.msg_id,
        content=cmd.content,
        mentions=cmd.mentions,
    )
    return Outcome(None, requests=(request,))


async def react(cmd: ReactToMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Adds or removes one's own reaction."""
    row = await _seen(cmd.msg_id, ctx)
    await _may_write(row, ctx)
    request = ReactRequested(
        conversation_id=row.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        msg_id=cmd.msg_id,
        emoji=cmd.emoji,
        remove=cmd.remove,
    )
    return Outcome(None, requests=(request,))


async def pin(cmd: PinMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Pins a message in its conversation, for all members, or lets it go."""
    row = await _seen(cmd.msg_id, ctx)
    await _may_write(row, ctx)
    request = PinRequested(
        conversation_id=row.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        msg_id=cmd.msg_id,
        remove=cmd.remove,
    )
    return Outcome(None, requests=(request,))


async def _seen(msg_id: str, ctx: Context[Deps]) -> MessageRow:
    """The message, if it is there for the asker. Raises: NotFound, which does not tell others that it exists."""
    row = await ctx.deps.messages.find(msg_id)
    if row is None:
        raise NotFound(f"no message {msg_id}", field="msg_id")
    pair = members_of_private(row.conversation_id)
    if pair is None or ctx.user_id not in pair:
        raise NotFound(f"no message {msg_id}", field="msg_id")
    return row


async def _may_write(row: MessageRow, ctx: Context[Deps]) -> None:
    pair = members_of_private(row.conversation_id)
    assert pair is not None
    await ctx.deps.gate.private(ctx.user_id, pair.other(ctx.user_id))
