"""`message.read` and `message.delivered`: positions in a conversation, which only the timeline moves."""

from typing import Protocol

import msgspec

from schemas.messages import ConfirmDelivery, ReadMessages, ReadPosition
from schemas.records import DeliveredRequested, ReadRequested
from schemas.types import Empty
from shared.errors import Forbidden
from shared.function import Context, Outcome
from shared.gate import POSITIONS
from shared.ids import members_of_private


class Rights(Protocol):
    """See `shared.gate.Gate`."""

    async def limit(self, name: str, user_id: int) -> None:
        """Raises: RateLimited."""


class Deps(msgspec.Struct, frozen=True):
    """What the commands need."""

    gate: Rights


async def read(cmd: ReadMessages, ctx: Context[Deps]) -> Outcome[ReadPosition]:
    """The user has read up to `seq`, on whichever device."""
    await _may(cmd.conversation_id, ctx)
    request = ReadRequested(
        conversation_id=cmd.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        seq=cmd.seq,
    )
    return Outcome(None, requests=(request,))


async def delivered(cmd: ConfirmDelivery, ctx: Context[Deps]) -> Outcome[Empty]:
    """A device of the user has all messages up to `seq`. Devices confirm in batches, so no message waits for it."""
    await _may(cmd.conversation_id, ctx)
    request = DeliveredRequested(
        conversation_id=cmd.conversation_id,
        user_id=ctx.user_id,
        at=ctx.at,
        reply=ctx.reply,
        conn=ctx.conn,
        trace=ctx.traceparent,
        seq=cmd.seq,
    )
    return Outcome(None, requests=(request,))


async def _may(conversation_id: str, ctx: Context[Deps]) -> None:
    """Positions are one's own: a block does not hold for them."""
    pair = members_of_private(conversation_id)
    if pair is None or ctx.user_id not in pair:
        raise Forbidden("not your conversation", field="conversation_id")
    await ctx.deps.gate.limit(POSITIONS, ctx.user_id)
