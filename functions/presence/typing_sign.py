"""`typing.send`: a sign that passes by."""

from functions.presence.handlers import Deps
from schemas.events import TypingPushed
from schemas.presence import SendTyping
from schemas.types import Empty
from shared import subjects
from shared.errors import BadRequest, Forbidden
from shared.function import Context, Outcome, Push, frame, to_user
from shared.gate import TYPING
from shared.ids import members_of_private, private_conversation


async def send_typing(cmd: SendTyping, ctx: Context[Deps]) -> Outcome[Empty]:
    """To whom a message would go, with the same rights."""
    gate, user_id = ctx.deps.gate, ctx.user_id
    conversation_id = _conversation(cmd, user_id)
    event = TypingPushed(conversation_id, user_id, cmd.typing)
    if pair := members_of_private(conversation_id):
        peer = pair.other(user_id)
        await gate.private(user_id, peer, TYPING)
        return Outcome(Empty(), pushes=(to_user(peer, event),))
    group_id = int(conversation_id.removeprefix("g_"))
    await gate.group(user_id, group_id, TYPING)
    push = Push(subjects.group(group_id), frame(event, event.type))
    return Outcome(Empty(), pushes=(push,))


def _conversation(cmd: SendTyping, user_id: int) -> str:
    """However the request names it."""
    named = [x for x in (cmd.receiver_id, cmd.group_id, cmd.conversation_id) if x is not None]
    if len(named) != 1:
        raise BadRequest("name exactly one of receiver_id, group_id, conversation_id")
    if cmd.group_id is not None:
        return f"g_{cmd.group_id}"
    if cmd.receiver_id is not None:
        if cmd.receiver_id == user_id:
            raise BadRequest("that is yourself", field="receiver_id")
        return private_conversation(user_id, cmd.receiver_id)
    assert cmd.conversation_id is not None
    pair = members_of_private(cmd.conversation_id)
    if pair is None and cmd.conversation_id.startswith("p_"):
        raise BadRequest("no such conversation can be", field="conversation_id")
    if pair is not None and user_id not in pair:
        raise Forbidden("not your conversation", field="conversation_id")
    return cmd.conversation_id
