"""The archive in SQL: heads of conversations (coalesced), and messages out of the monthly tables."""

from collections.abc import Awaitable, Sequence

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.handler import Head
from schemas.messages import Message, Origin, Reaction
from shared import tables
from shared.adapters.sql import reading
from shared.coalesce import Coalescer
from shared.ids import snowflake_ms


class SqlArchive:
    """Implements `pages.Archive` and `handler.Conversations`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._heads = Coalescer(self._read_heads)

    def head(self, conversation_id: str) -> Awaitable[Head]:
        """See `pages.Archive.head`: one query for all that ask at the same time."""
        return self._heads.ask(conversation_id)

    async def read(
        self, conversation_id: str, first: int, last: int
    ) -> Sequence[tuple[int, bytes]]:
        """See `pages.Archive.read`. Only the months that hold the span are read."""
        month_of = tables.conversation_month.c
        found: list[tuple[int, bytes]] = []
        with reading():
            async with self._engine.connect() as connection:
                months = (
                    await connection.execute(
                        select(month_of.month, month_of.first_seq)
                        .where(
                            month_of.conversation_id == conversation_id,
                            month_of.first_seq <= last,
                        )
                        .order_by(month_of.month)
                    )
                ).all()
                for i, (month, _) in enumerate(months):
                    if i + 1 < len(months) and months[i + 1].first_seq <= first:
                        continue  # the span begins in a later month
                    table = tables.message_table(month)
                    rows = await connection.execute(
                        select(table)
                        .where(
                            table.c.conversation_id == conversation_id,
                            table.c.seq.between(first, last),
                        )
                        .order_by(table.c.seq)
                    )
                    found += [(row.seq, encode(row)) for row in rows]
        return found

    async def of_user(
        self, user_id: int, after: str, upto: str | None, limit: int
    ) -> Sequence[tuple[str, int, int]]:
        """See `handler.Conversations.of_user`."""
        mine, heads = tables.user_conversation.c, tables.conversation.c
        query = (
            select(heads.conversation_id, heads.max_seq, heads.max_rev)
            .join_from(
                tables.user_conversation,
                tables.conversation,
                mine.conversation_id == heads.conversation_id,
            )
            .where(mine.user_id == user_id, mine.conversation_id > after)
            .order_by(mine.conversation_id)
            .limit(limit)
        )
        if upto is not None:
            query = query.where(mine.conversation_id <= upto)
        with reading():
            async with self._engine.connect() as connection:
                return [
                    (row.conversation_id, row.max_seq, row.max_rev)
                    for row in await connection.execute(query)
                ]

    async def _read_heads(self, conversations: list[str]) -> Sequence[Head]:
        c = tables.conversation.c
        query = select(c.conversation_id, c.max_seq, c.max_rev).where(
            c.conversation_id.in_(set(conversations))
        )
        with reading():
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).all()
        heads = {conversation_id: Head(seq, rev) for conversation_id, seq, rev in found}
        return [heads.get(conversation_id, Head(0, 0)) for conversation_id in conversations]


def encode(row: Row[tuple[object, ...]]) -> bytes:
    """A row as the JSON of schemas.messages.Message, byte for byte as the timeline has pushed it."""
    return msgspec.json.encode(
        Message(
            msg_id=row.msg_id,
            conversation_id=row.conversation_id,
            sender_id=row.sender_id,
            msg_type=row.msg_type,
            content=row.content,
            timestamp=snowflake_ms(row.id),
            seq=row.seq,
            client_msg_id=row.client_msg_id,
            status=row.status,
            receiver_id=row.receiver_id,
            group_id=row.group_id,
            rev=row.rev,
            reply_to=row.reply_to,
            mentions=msgspec.json.decode(row.mentions) if row.mentions else [],
            file_id=row.file_id,
            extra=msgspec.Raw(row.extra.encode()) if row.extra is not None else msgspec.UNSET,
            edited_at=row.edited_ms,
            forward=msgspec.json.decode(row.forward, type=Origin) if row.forward else None,
            reactions=msgspec.json.decode(row.reactions, type=list[Reaction])
            if row.reactions
            else [],
            pinned=bool(row.pinned),
        )
    )
