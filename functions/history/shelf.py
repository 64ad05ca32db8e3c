"""The conversation list in SQL. Nothing is kept for it but one's own row: counts are made when somebody asks."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history import counting
from functions.history.listing import Entry, Place
from functions.history.parts import Part, by_month, rows_within
from functions.history.view import Head, Mine
from shared import tables
from shared.adapters.sql import snapshot, writing
from shared.lookup import json_of

_HEAD, _MINE = tables.conversation.c, tables.user_conversation.c
_ENTRIES = select(
    _HEAD.conversation_id,
    _HEAD.max_seq,
    _HEAD.max_rev,
    _HEAD.message_rev,
    _HEAD.changed_ms,
    _MINE.read_seq,
    _MINE.delivered_seq,
    _MINE.from_seq,
    _MINE.until_seq,
    _MINE.cleared_seq,
    _MINE.pinned,
    _MINE.muted,
    _MINE.draft,
).join_from(
    tables.user_conversation, tables.conversation, _MINE.conversation_id == _HEAD.conversation_id
)


class SqlShelf:
    """Implements `listing.Shelf`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, user_id: int, after: Place | None, limit: int) -> Sequence[Entry]:
        """See `listing.Shelf.page`."""
        query = (
            _ENTRIES.where(_MINE.user_id == user_id)
            .order_by(_MINE.pinned.desc(), _HEAD.changed_ms.desc(), _MINE.conversation_id.desc())
            .limit(limit)
        )
        if after is not None:
            pinned, ms, conversation_id = after
            query = query.where(
                or_(
                    _MINE.pinned < pinned,
                    and_(_MINE.pinned == pinned, _HEAD.changed_ms < ms),
                    and_(
                        _MINE.pinned == pinned,
                        _HEAD.changed_ms == ms,
                        _MINE.conversation_id < conversation_id,
                    ),
                )
            )
        return await self._entries(user_id, query)

    async def some(self, user_id: int, conversations: Sequence[str]) -> Sequence[Entry]:
        """See `listing.Shelf.some`."""
        return await self._entries(
            user_id,
            _ENTRIES.where(_MINE.user_id == user_id, _MINE.conversation_id.in_(conversations)),
        )

    async def put(self, user_id: int, conversation_id: str, values: Mapping[str, Any]) -> None:
        """See `listing.Shelf.put`."""
        mine = and_(_MINE.user_id == user_id, _MINE.conversation_id == conversation_id)
        async with writing(self._engine) as connection:
            await connection.execute(update(tables.user_conversation).where(mine).values(**values))

    async def clear(self, user_id: int, conversation_id: str, upto_seq: int) -> None:
        """See `listing.Shelf.clear`."""
        mine = and_(
            _MINE.user_id == user_id,
            _MINE.conversation_id == conversation_id,
            _MINE.cleared_seq < upto_seq,
        )
        async with writing(self._engine) as connection:
            await connection.execute(
                update(tables.user_conversation).where(mine).values(cleared_seq=upto_seq)
            )

    async def _entries(self, user_id: int, query: Select[Any]) -> Sequence[Entry]:
        async with snapshot(self._engine) as connection:
            entries = {row.conversation_id: _entry(row) for row in await connection.execute(query)}
            if not entries:
                return []
            unread = [
                Part(c, max(e.mine.read_seq, e.mine.low) + 1, e.head.seq)
                for c, e in entries.items()
                if e.mine.until_seq
                is None  # who has left has nothing to read any more, nor can say that he has
            ]
            numbers: dict[str, list[int]] = {c: [0, 0] for c in entries}
            for month, parts in (await by_month(connection, unread)).items():
                for c, n in await counting.unread(connection, month, parts, user_id):
                    numbers[c][0] += n
                for c, n in await counting.mentions(connection, month, parts, user_id):
                    numbers[c][1] += n
            newest = [
                Part(c, last, last)
                for c, e in entries.items()
                if e.mine.sees(last := e.mine.upto(e.head.seq))
            ]
            texts: dict[str, bytes] = {}
            for month, parts in (await by_month(connection, newest)).items():
                rows = await rows_within(connection, month, parts)
                texts |= {row.conversation_id: json_of(row) for row in rows}
        return [
            e._replace(unread=numbers[c][0], mentions=numbers[c][1], last=texts.get(c, b""))
            for c, e in entries.items()
        ]


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        Place(row.pinned, row.changed_ms, row.conversation_id),
        Head(row.max_seq, row.max_rev, row.message_rev),
        Mine(row.read_seq, row.delivered_seq, row.from_seq, row.until_seq, row.cleared_seq),
        bool(row.muted),
        row.draft,
    )
