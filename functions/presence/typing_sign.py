"""`typing.send`: a sign that passes by."""

from functions.presence.handlers import Deps
from schemas.events import TypingPushed
from schemas.presence import SendTyping
from schemas.types import Empty
from shared.errors import BadRequest, Forbidden
from shared.function import Context, Outcome, to_user
from shared.gate import TYPING
from shared.ids import members_of_private, private_conversation


async def send_typing(cmd: SendTyping, ctx: Context[Deps]) -> Outcome[Empty]:
    """To whom a message would go, with the same rights."""
    peer = _peer(cmd, ctx.user_id)
    await ctx.deps.gate.private(ctx.user_id, peer, TYPING)
    event = TypingPushed(private_conversation(ctx.user_id, peer), ctx.user_id, cmd.typing)
    return Outcome(Empty(), pushes=(to_user(peer, event),))


def _peer(cmd: SendTyping, user_id: int) -> int:
    """The peer, however the request names him."""
    named = [x for x in (cmd.receiver_id, cmd.group_id, cmd.conversation_id) if x is not None]
    if len(named) != 1:
        raise BadRequest("name exactly one of receiver_id, group_id, conversation_id")
    if cmd.receiver_id is not None:
        peer = cmd.receiver_id
    elif cmd.conversation_id is not None and (pair := members_of_private(cmd.conversation_id)):
        if user_id not in pair:
            raise Forbidden("not your conversation", field="conversation_id")
        peer = pair.other(user_id)
    else:
        raise BadRequest("groups are not served yet", field="group_id")
    if peer == user_id:
        raise BadRequest("that is yourself", field="receiver_id")
    return peer
