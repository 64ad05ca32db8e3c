"""What somebody sees who has left a group: messages as they were then. A recall reaches him, a later edit does not."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.messages import Message
from shared import tables
from shared.lookup import time_of

EDITED = b'"edited_at":'
"""Stands in the JSON of every message that was edited."""

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.encode


class Earlier(NamedTuple):
    """What a message was before it was edited; `edited_ms`: when it had been edited before that, if ever."""

    content: str
    edited_ms: int | None


async def as_left(
    connection: AsyncConnection, conversation_id: str, until_seq: int, messages: Sequence[bytes]
) -> list[bytes]:
    """Messages as JSON, those that were edited since the message `until_seq` as they were before."""
    decoded = {i: _decode(m) for i, m in enumerate(messages) if EDITED in m}
    ids = {int(m.msg_id) for m in decoded.values()}
    earlier = await before_leaving(connection, conversation_id, until_seq, ids)
    seen = list(messages)
    for i, message in decoded.items():
        if (was := earlier.get(int(message.msg_id))) is not None:
            # Whom it mentioned then is not kept.
            seen[i] = _encode(
                replace(message, content=was.content, edited_at=was.edited_ms, mentions=[])
            )
    return seen


async def before_leaving(
    connection: AsyncConnection, conversation_id: str, until_seq: int, ids: Iterable[int]
) -> dict[int, Earlier]:
    """Of messages that were edited since the message `until_seq`, what they were before."""
    if not (wanted := list(ids)):
        return {}
    left_ms = await time_of(connection, conversation_id, until_seq)
    c = tables.message_edit.c
    query = select(c.msg_id, c.content, c.edited_ms).where(c.msg_id.in_(wanted)).order_by(c.rev)
    earlier: dict[int, Earlier] = {}
    before: dict[int, int] = {}
    for msg_id, content, edited_ms in await connection.execute(query):
        if edited_ms < left_ms:
            before[msg_id] = edited_ms
        else:
            earlier.setdefault(msg_id, Earlier(content, before.get(msg_id)))
    return earlier
