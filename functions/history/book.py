"""Receipts, earlier contents and pins in SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.former import as_left
from functions.history.receipts import Pin, Place, Reader, Readers
from functions.history.view import Mine
from schemas.conversations import Edit
from shared import tables
from shared.adapters.sql import reading, snapshot
from shared.lookup import MessageRow, by_ids, json_of, time_of


class SqlBook:
    """Implements `receipts.Book`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def readers(self, message: MessageRow, after: int, limit: int) -> Readers:
        """See `receipts.Book.readers`."""
        c = tables.user_conversation.c
        seq = message.seq
        read = c.read_seq >= seq
        there = and_(
            c.conversation_id == message.conversation_id,
            c.user_id != message.sender_id,
            c.from_seq < seq,
            or_(c.until_seq.is_(None), c.until_seq >= seq),
            or_(read, c.delivered_seq >= seq),
        )
        counts = select(func.count(), func.coalesce(func.sum(case((read, 1), else_=0)), 0)).where(
            there
        )
        page = (
            select(c.user_id, read.label("read"))
            .where(there, c.user_id > after)
            .order_by(c.user_id)
            .limit(limit)
        )
        async with snapshot(self._engine) as connection:
            delivered, has_read = (await connection.execute(counts)).one()
            rows = (await connection.execute(page)).all()
        readers = [Reader(row.user_id, bool(row.read)) for row in rows]
        return Readers(readers, int(has_read), delivered)  # MySQL sums to decimals

    async def edits(self, message: MessageRow, mine: Mine) -> Sequence[Edit]:
        """See `receipts.Book.edits`."""
        c = tables.message_edit.c
        query = select(c.rev, c.content, c.edited_ms).where(c.msg_id == message.id).order_by(c.rev)
        with reading():
            async with self._engine.connect() as connection:
                if mine.until_seq is not None:
                    left_ms = await time_of(connection, message.conversation_id, mine.until_seq)
                    query = query.where(c.edited_ms < left_ms)
                return [
                    Edit(row.rev, row.content, row.edited_ms)
                    for row in await connection.execute(query)
                ]

    async def pins(
        self, conversation_id: str, mine: Mine, after: Place | None, limit: int
    ) -> tuple[Sequence[Pin], Place | None]:
        """See `receipts.Book.pins`."""
        c = tables.conversation_pin.c
        query = (
            select(c.msg_id, c.user_id, c.pinned_ms)
            .where(c.conversation_id == conversation_id)
            .order_by(c.pinned_ms.desc(), c.msg_id.desc())
        )
        if after is not None:
            ms, msg_id = after
            query = query.where(or_(c.pinned_ms < ms, and_(c.pinned_ms == ms, c.msg_id < msg_id)))
        async with snapshot(self._engine) as connection:
            rows: Sequence[Any] = (await connection.execute(query.limit(limit + 1))).all()
            page = rows[:limit]
            messages = await by_ids(connection, [row.msg_id for row in page])
            shown = [r for r in page if r.msg_id in messages and mine.sees(messages[r.msg_id].seq)]
            texts = [json_of(messages[row.msg_id]) for row in shown]
            if mine.until_seq is not None:
                texts = await as_left(connection, conversation_id, mine.until_seq, texts)
        seen = [
            Pin(text, row.user_id, row.pinned_ms) for row, text in zip(shown, texts, strict=True)
        ]
        return seen, (page[-1].pinned_ms, page[-1].msg_id) if len(rows) > limit else None
