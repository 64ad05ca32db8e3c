"""`message.send`: whose conversation is it, may he, and is it well-formed; then it is a record for the log."""

from typing import Protocol

import msgspec

from schemas.messages import MessageAck, SendMessage
from schemas.records import SendRequested
from schemas.types import MAX_EXTRA
from shared.errors import BadRequest, Forbidden, TooLarge
from shared.function import Context, Outcome
from shared.ids import members_of_private, private_conversation

MAX_DEPTH = 64
"""Deepest nesting of `extra`; some parsers give up at 100."""


class Admission(Protocol):
    """Says whether a message may be sent now."""

    async def private(self, sender: int, receiver: int) -> None:
        """Raises: RateLimited, Unauthenticated, NotFound, Blocked, NotFriend, Unavailable."""


class Deps(msgspec.Struct, frozen=True):
    """What `send` needs."""

    gate: Admission


async def send(cmd: SendMessage, ctx: Context[Deps]) -> Outcome[MessageAck]:
    """Checks and appends; the answer comes from the timeline once the record is committed and numbered."""
    receiver = _receiver(cmd, ctx.user_id)
    extra = cmd.extra
    if isinstance(extra, msgspec.Raw):
        _check_extra(bytes(extra))
    await ctx.deps.gate.private(ctx.user_id, receiver)
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


def _check_extra(extra: bytes) -> None:
    """It is passed on unread: whatever a strict reader stumbles over would cut its receivers off."""
    if len(extra) > MAX_EXTRA:
        raise TooLarge(f"extra is longer than {MAX_EXTRA} bytes", field="extra")
    try:
        if _depth(msgspec.json.decode(extra)) > MAX_DEPTH:
            raise BadRequest(f"extra is nested deeper than {MAX_DEPTH} levels", field="extra")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"extra is not valid JSON: {error}", field="extra") from None


def _depth(value: object) -> int:
    """Levels of arrays and objects in a decoded JSON value."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


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
