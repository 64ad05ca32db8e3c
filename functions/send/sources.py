"""The messages that a new one refers to: what it quotes, and what it forwards."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.send.handler import Body
from schemas.messages import Origin
from shared import tables
from shared.adapters.sql import reading
from shared.errors import BadRequest, NotFound
from shared.ids import members_of_private, snowflake_ms
from shared.lookup import MessageRow, Messages, time_of

RECALLED = 1


class SqlSources:
    """Implements `handler.Sources`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._messages = Messages(engine)

    async def check_quoted(self, msg_id: str, conversation_id: str) -> None:
        """See `handler.Sources.check_quoted`."""
        row = await self._messages.find(msg_id)
        if row is None or row.conversation_id != conversation_id:
            raise NotFound(f"no message {msg_id} in this conversation", field="reply_to")

    async def forwarded(self, msg_id: str, user_id: int) -> Body:
        """See `handler.Sources.forwarded`."""
        row = await self._messages.find(msg_id)
        if row is None or row.status == RECALLED or not await self._sees(user_id, row):
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

    async def _sees(self, user_id: int, row: MessageRow) -> bool:
        """Whether a message is there for a user: he is, or was then, a member, and has not cleared it."""
        pair = members_of_private(row.conversation_id)
        if pair is not None and user_id not in pair:
            return False
        c = tables.user_conversation.c
        query = select(c.from_seq, c.until_seq, c.cleared_seq).where(
            c.user_id == user_id, c.conversation_id == row.conversation_id
        )
        with reading():
            async with self._engine.connect() as connection:
                mine: Any = (await connection.execute(query)).first()
                if (
                    mine is not None
                    and mine.until_seq is not None
                    and row.edited_ms is not None
                    and await time_of(connection, row.conversation_id, mine.until_seq)
                    <= row.edited_ms
                ):
                    return False  # what it says now is not for one who had left before
        if mine is None:
            return False
        upto = row.seq if mine.until_seq is None else mine.until_seq
        return bool(max(mine.from_seq, mine.cleared_seq) < row.seq <= upto)


def _origin(row: MessageRow) -> Origin:
    """A forward of a forward names the very first message."""
    if row.forward is not None:
        return msgspec.json.decode(row.forward, type=Origin)
    return Origin(row.msg_id, row.conversation_id, row.sender_id, snowflake_ms(row.id))
