"""The messages that a new one refers to: what it quotes, and what it forwards."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.send.handler import Body
from schemas.messages import Origin
from shared.errors import BadRequest, NotFound
from shared.ids import snowflake_ms
from shared.lookup import MessageRow, Messages

RECALLED = 1


class SqlSources:
    """Implements `handler.Sources`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._messages = Messages(engine)

    async def quoted(self, msg_id: str, conversation_id: str) -> str:
        """See `handler.Sources.quoted`."""
        row = await self._messages.find(msg_id)
        if row is None or row.conversation_id != conversation_id:
            raise NotFound(f"no message {msg_id} in this conversation", field="reply_to")
        return row.msg_id

    async def forwarded(self, msg_id: str, user_id: int) -> Body:
        """See `handler.Sources.forwarded`."""
        row = await self._messages.find(msg_id)
        if row is None or row.status == RECALLED or not await self._messages.sees(user_id, row):
            raise NotFound(f"no message {msg_id}", field="forward_of")
        if row.msg_type == 0:
            raise BadRequest("messages of the server are not forwarded", field="forward_of")
        return Body(
            row.msg_type,
            row.content,
            row.file_id,
            msgspec.UNSET if row.extra is None else msgspec.Raw(row.extra.encode()),
            _origin(row),
        )


def _origin(row: MessageRow) -> Origin:
    """A forward of a forward names the very first message."""
    if row.forward is not None:
        return msgspec.json.decode(row.forward, type=Origin)
    return Origin(row.msg_id, row.conversation_id, row.sender_id, snowflake_ms(row.id))
