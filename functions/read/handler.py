"""`message.read` and `message.delivered`: positions in a conversation, which only the timeline moves."""

from typing import Protocol

import msgspec

from schemas.messages import ConfirmDelivery, ReadMessages, ReadPosition
from schemas.records import DeliveredRequested, ReadRequested
from schemas.types import Empty
from shared.errors import Forbidden
from shared.function import Context, Outcome
from shared.gate import POSITIONS
from shared.ids import group_of, members_of_private


class Rights(Protocol):
    """See `shared.gate.Gate`."""

    async def member(self, user_id: int, group_id: int) -> object:
        """Raises: Unauthenticated, NotFound, NotMember, Unavailable."""

    async def limit(self, name: str, user_id: int) -> None:
        """Raises: RateLimited."""


class Deps(msgspec.Struct, frozen=True):
    """What the commands need."""

    gate: Rights


async def read(cmd: ReadMessages, ctx: Context[Deps]) -> Outcome[ReadPosition]:
    """The user has read up to `seq`, on whichever device."""
    await _may(cmd.conversation_id, ctx)
    request = ReadRequested(
        **ctx.asked(cmd.conversation_id),
        seq=cmd.seq,
    )
    return Outcome(None, requests=(request,))


async def delivered(cmd: ConfirmDelivery, ctx: Context[Deps]) -> Outcome[Empty]:
    """A device of the user has all messages up to `seq`. Devices confirm in batches, so no message waits for it."""
    await _may(cmd.conversation_id, ctx)
    request = DeliveredRequested(
        **ctx.asked(cmd.conversation_id),
        seq=cmd.seq,
    )
    return Outcome(None, requests=(request,))


async def _may(conversation_id: str, ctx: Context[Deps]) -> None:
    """Positions are one's own: neither a block nor a mute holds for them."""
    group_id = group_of(conversation_id)
    if group_id is not None:
        await ctx.deps.gate.member(ctx.user_id, group_id)
    elif ctx.user_id not in (members_of_private(conversation_id) or ()):
        raise Forbidden("not your conversation", field="conversation_id")
    await ctx.deps.gate.limit(POSITIONS, ctx.user_id)
