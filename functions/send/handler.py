"""`message.send`: whose conversation is it, may he, and is it well-formed; then it is a record for the log."""

from typing import Protocol

import msgspec

from schemas.messages import MessageAck, SendMessage
from schemas.records import SendRequested
from schemas.types import MAX_EXTRA
from shared.errors import BadRequest, Forbidden, TooLarge
from shared.function import Context, Outcome
from shared.ids import members_of_private, private_conversation


class Admission(Protocol):
    """Says whether a message may be sent now."""

    async def admit(self, sender: int, receiver: int) -> None:
        """Raises: RateLimited, Unauthenticated, NotFound, Unavailable."""


class Deps(msgspec.Struct, frozen=True):
    """What `send` needs."""

    gate: Admission


async def send(cmd: SendMessage, ctx: Context[Deps]) -> Outcome[MessageAck]:
    """Checks and appends; the answer comes from the timeline once the record is committed and numbered."""
    receiver = _receiver(cmd, ctx.user_id)
    extra = cmd.extra
    if isinstance(extra, msgspec.Raw) and len(bytes(extra)) > MAX_EXTRA:
        raise TooLarge(f"extra is longer than {MAX_EXTRA} bytes", field="extra")
    await ctx.deps.gate.admit(ctx.user_id, receiver)
    record = SendRequested(
        conversation_id=private_conversation(ctx.user_id, receiver),
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        client_msg_id=cmd.client_msg_id,
        msg_type=cmd.msg_type,
        content=cmd.content,
        receiver_id=receiver,
        reply_to=cmd.reply_to,
        mentions=cmd.mentions,
        file_id=cmd.file_id,
        extra=extra,
    )
    return Outcome(None, requests=(record,))


def _receiver(cmd: SendMessage, sender: int) -> int:
    """The peer, however the request names him."""
    named = [x for x in (cmd.receiver_id, cmd.group_id, cmd.conversation_id) if x is not None]
    if len(named) != 1:
        raise BadRequest("name exactly one of receiver_id, group_id, conversation_id")
    if cmd.receiver_id is not None:
        receiver = cmd.receiver_id
    elif cmd.conversation_id is not None and (pair := members_of_private(cmd.conversation_id)):
        if sender not in pair:
            raise Forbidden("not your conversation", field="conversation_id")
        receiver = pair.other(sender)
    else:
        raise BadRequest("groups are not served yet", field="group_id")
    if receiver == sender:
        raise BadRequest("sender and receiver are the same user", field="receiver_id")
    return receiver
