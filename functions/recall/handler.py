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
from schemas.rights import Role, allowed
from shared.contents import check_content
from shared.errors import Forbidden, NotFound, NotMember
from shared.function import Context, Outcome
from shared.gate import MESSAGES
from shared.ids import group_of, members_of_private
from shared.lookup import MessageRow

RECALLED = 1
SYSTEM = 0
"""`msg_type` of the server's own messages."""


class Finder(Protocol):
    """Finds messages."""

    async def find(self, msg_id: str) -> MessageRow | None:
        """The message, recalled or not; None if there is none. Raises: Unavailable."""

    async def sees(self, user_id: int, row: MessageRow) -> bool:
        """Whether it is there for a user, not cleared nor older than his membership. Raises: Unavailable."""


class Rights(Protocol):
    """Says whether a user may write to another one; see `shared.gate.Gate`."""

    async def private(self, sender: int, receiver: int) -> None:
        """Raises: RateLimited, Unauthenticated, NotFound, Blocked, NotFriend, Unavailable."""

    async def group(self, sender: int, group_id: int) -> Role:
        """Raises: RateLimited, Unauthenticated, NotFound, NotMember, Muted, Unavailable."""

    async def member(self, user_id: int, group_id: int) -> Role:
        """Raises: Unauthenticated, NotFound, NotMember, Unavailable."""

    async def limit(self, name: str, user_id: int) -> None:
        """Raises: RateLimited."""


class Deps(msgspec.Struct, frozen=True):
    """What the commands need. `window_ms`: how long after sending a message may be recalled by its sender."""

    messages: Finder
    gate: Rights
    window_ms: int


async def recall(cmd: RecallMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Takes a message back. One may do so even where one may no longer write."""
    row, role = await _seen(cmd.msg_id, ctx)
    await ctx.deps.gate.limit(MESSAGES, ctx.user_id)
    # Whose message it is makes no difference to those who may: not even his role, should he be in still.
    moderator = role is not None and allowed("recall", role, Role.MEMBER)
    if row.msg_type == SYSTEM or not (moderator or row.sender_id == ctx.user_id):
        raise Forbidden("not your message", field="msg_id")
    request = RecallRequested(
        **ctx.asked(row.conversation_id),
        msg_id=cmd.msg_id,
        window_ms=ctx.deps.window_ms,
        moderator=moderator,
    )
    return Outcome(None, requests=(request,))


async def edit(cmd: EditMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Replaces one's own content, which must suit the message's type."""
    row, _ = await _seen(cmd.msg_id, ctx)
    if row.sender_id != ctx.user_id or row.msg_type == SYSTEM:
        raise Forbidden("not your message", field="msg_id")
    await _may_write(row, ctx)
    # Of a recalled one no file is known any more; the timeline refuses it.
    if row.status != RECALLED:
        if row.forward is not None:
            raise Forbidden("a forward says what its origin said", field="msg_id")
        check_content(row.msg_type, cmd.content, row.file_id)
    request = EditRequested(
        **ctx.asked(row.conversation_id),
        msg_id=cmd.msg_id,
        content=cmd.content,
        mentions=cmd.mentions,
    )
    return Outcome(None, requests=(request,))


async def react(cmd: ReactToMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Adds or removes one's own reaction."""
    row, _ = await _seen(cmd.msg_id, ctx)
    await _may_write(row, ctx)
    if not await ctx.deps.messages.sees(ctx.user_id, row):
        raise _missing(cmd.msg_id)
    request = ReactRequested(
        **ctx.asked(row.conversation_id),
        msg_id=cmd.msg_id,
        emoji=cmd.emoji,
        remove=cmd.remove,
    )
    return Outcome(None, requests=(request,))


async def pin(cmd: PinMessage, ctx: Context[Deps]) -> Outcome[Changed]:
    """Pins a message in its conversation, for all members, or lets it go."""
    row, role = await _seen(cmd.msg_id, ctx)
    await _may_write(row, ctx)
    if role is not None and not allowed("pin", role):
        raise Forbidden("only the owner and admins of a group pin messages")
    request = PinRequested(
        **ctx.asked(row.conversation_id),
        msg_id=cmd.msg_id,
        remove=cmd.remove,
    )
    return Outcome(None, requests=(request,))


async def _seen(msg_id: str, ctx: Context[Deps]) -> tuple[MessageRow, Role | None]:
    """A message of the asker's conversations, and what he is if it stands in a group.

    Raises: NotFound, which does not tell others that it exists.
    """
    row = await ctx.deps.messages.find(msg_id)
    missing = _missing(msg_id)
    if row is None:
        raise missing
    group_id = group_of(row.conversation_id)
    if group_id is not None:
        try:
            return row, await ctx.deps.gate.member(ctx.user_id, group_id)
        except (NotMember, NotFound):
            raise missing from None
    if ctx.user_id not in (members_of_private(row.conversation_id) or ()):
        raise missing
    return row, None


def _missing(msg_id: str) -> NotFound:
    return NotFound(f"no message {msg_id}", field="msg_id")


async def _may_write(row: MessageRow, ctx: Context[Deps]) -> None:
    group_id = group_of(row.conversation_id)
    if group_id is not None:
        await ctx.deps.gate.group(ctx.user_id, group_id)
        return
    pair = members_of_private(row.conversation_id)
    assert pair is not None
    await ctx.deps.gate.private(ctx.user_id, pair.other(ctx.user_id))
