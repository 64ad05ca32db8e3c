"""`message.send`: whose conversation is it, may he, and is it well-formed; then it is a record for the log."""

from typing import NamedTuple, Protocol

import msgspec

from schemas.contents import TEXT
from schemas.messages import MessageAck, Origin, SendMessage
from schemas.records import SendRequested
from schemas.types import MAX_EXTRA, Extra
from shared.contents import check_content, check_json
from shared.errors import BadRequest, Forbidden, NotFound, TooLarge
from shared.function import Context, Outcome
from shared.ids import (
    group_of,
    members_of_private,
    private_conversation,
)


class Body(NamedTuple):
    """What a message says. `forward`: the message that it repeats."""

    msg_type: int
    content: str
    file_id: str | None
    extra: Extra
    forward: Origin | None = None


GONE = Body(TEXT, "", None, msgspec.UNSET)
"""Of a forward whose origin is not there, or not there any more."""


class Admission(Protocol):
    """Says whether a message may be sent now."""

    async def private(self, sender: int, receiver: int) -> None:
        """Raises: RateLimited, Unauthenticated, NotFound, Blocked, NotFriend, Unavailable."""

    async def group(self, sender: int, group_id: int) -> object:
        """Raises: RateLimited, Unauthenticated, NotFound, NotMember, Muted, Unavailable."""


class Sources(Protocol):
    """Knows the messages that a new one may refer to."""

    async def quoted(self, msg_id: str, conversation_id: str) -> str:
        """The `msg_id` as everybody writes it. Raises: NotFound unless it is one of this conversation; Unavailable."""

    async def forwarded(self, msg_id: str, user_id: int) -> Body:
        """What a message says that this user forwards.

        Raises: NotFound if it is not there for him, or recalled; BadRequest if it is the server's own; Unavailable.
        """


class Deps(msgspec.Struct, frozen=True):
    """What `send` needs."""

    gate: Admission
    sources: Sources


async def send(cmd: SendMessage, ctx: Context[Deps]) -> Outcome[MessageAck]:
    """Checks and appends; the answer comes from the timeline once the record is committed and numbered."""
    conversation_id, receiver, group_id = _place(cmd, ctx.user_id)
    body = _body(cmd) if cmd.forward_of is None else None
    if receiver is not None:
        await ctx.deps.gate.private(ctx.user_id, receiver)
    elif group_id is not None:
        await ctx.deps.gate.group(ctx.user_id, group_id)
    reply_to = cmd.reply_to
    if reply_to is not None:
        reply_to = await ctx.deps.sources.quoted(reply_to, conversation_id)
    if body is None:
        assert cmd.forward_of is not None
        try:
            body = await ctx.deps.sources.forwarded(cmd.forward_of, ctx.user_id)
        except NotFound:
            # Only the timeline knows whether this repeats a message that was sent before the origin was recalled.
            body = GONE
    record = SendRequested(
        conversation_id=conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        client_msg_id=cmd.client_msg_id,
        msg_type=body.msg_type,
        content=body.content,
        receiver_id=receiver,
        group_id=group_id,
        reply_to=reply_to,
        mentions=cmd.mentions,
        file_id=body.file_id,
        extra=body.extra,
        forward=body.forward,
        forward_of=cmd.forward_of,
    )
    return Outcome(None, requests=(record,))


def _body(cmd: SendMessage) -> Body:
    """What the command itself says, checked. Raises: BadRequest, TooLarge."""
    content, file_id, extra = cmd.content, cmd.file_id, cmd.extra
    if cmd.msg_type != TEXT or not content:
        file_id = check_content(cmd.msg_type, content, file_id)
    if isinstance(extra, msgspec.Raw):
        raw = bytes(extra)
        if len(raw) > MAX_EXTRA:
            raise TooLarge(f"extra is longer than {MAX_EXTRA} bytes", field="extra")
        check_json(raw, "extra")
    return Body(cmd.msg_type, content, file_id, extra)


class Place(NamedTuple):
    """Where a message goes: to a peer, or into a group."""

    conversation_id: str
    receiver_id: int | None = None
    group_id: int | None = None


def _place(cmd: SendMessage, sender: int) -> Place:
    """The conversation, however the request names it."""
    named = [x for x in (cmd.receiver_id, cmd.group_id, cmd.conversation_id) if x is not None]
    if len(named) != 1:
        raise BadRequest("name exactly one of receiver_id, group_id, conversation_id")
    receiver, group_id = cmd.receiver_id, cmd.group_id
    if cmd.conversation_id is not None:
        pair = members_of_private(cmd.conversation_id)
        group_id = group_of(cmd.conversation_id)
        if pair is None and group_id is None:
            raise BadRequest("the lower user id stands first", field="conversation_id")
        if pair is not None:
            if sender not in pair:
                raise Forbidden("not your conversation", field="conversation_id")
            receiver = pair.other(sender)
    if group_id is not None:
        return Place(f"g_{group_id}", group_id=group_id)
    assert receiver is not None
    if receiver == sender:
        raise BadRequest("sender and receiver are the same user", field="receiver_id")
    return Place(private_conversation(sender, receiver), receiver_id=receiver)
