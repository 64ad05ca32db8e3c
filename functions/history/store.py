"""The archive in SQL: what users see of conversations, for all who ask at the same time, and their messages."""

from collections.abc import Awaitable, Iterable, Sequence

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.former import EDITED, as_left
from functions.history.pages import Messages
from functions.history.parts import Part, by_month, rows_within
from functions.history.view import View
from shared import tables
from shared.adapters.bulk import literals
from shared.adapters.sql import reading
from shared.coalesce import Coalescer
from shared.lookup import json_of

_HEAD, _MINE = tables.conversation.c, tables.user_conversation.c
# One column: the MySQL driver is Python, and most of what a query costs it is for each column.
_VIEWS = select(
    func.json_array(
        _MINE.user_id,
        _MINE.conversation_id,
        func.json_array(
            func.json_array(_HEAD.max_seq, _HEAD.max_rev, _HEAD.message_rev),
            func.json_array(
                _MINE.read_seq,
                _MINE.delivered_seq,
                _MINE.from_seq,
                _MINE.until_seq,
                _MINE.cleared_seq,
            ),
        ),
    )
).join_from(
    tables.user_conversation,
    tables.conversation,
    _MINE.conversation_id == _HEAD.conversation_id,
)
_IS = f"({_MINE.user_id}=%d AND {_MINE.conversation_id}=%s)"
_decode = msgspec.json.Decoder(tuple[int, str, View]).decode

MAX_PARTS = 8
"""Pages of one query: all its rows are decoded before anything else goes on."""

Key = tuple[int, str]
"""user_id, conversation_id."""


class SqlArchive:
    """Implements `pages.Archive` and `sync.Conversations`."""

    def __init__(self, engine: AsyncEngine, reader: AsyncEngine | None = None) -> None:
        """reader: for what needs no snapshot over several statements; the same engine unless given."""
        self._engine = engine
        self._reader = reader or engine
        self._views_of = str(_VIEWS.compile(dialect=engine.dialect))
        # One call at a time, while the next one gathers: much of the cost is by the call, not by the key.
        self._views: Coalescer[Key, View | None] = Coalescer(self.views, parallel=1)
        self._parts: Coalescer[Part, Messages] = Coalescer(self._read, most=MAX_PARTS)

    def view(self, user_id: int, conversation_id: str) -> Awaitable[View | None]:
        """See `view.Views.view`."""
        return self._views.ask((user_id, conversation_id))

    def read(self, conversation_id: str, first: int, last: int) -> Awaitable[Messages]:
        """See `pages.Archive.read`."""
        return self._parts.ask(Part(conversation_id, first, last))

    async def as_left(self, conversation_id: str, until_seq: int, found: Messages) -> Messages:
        """See `pages.Archive.as_left`."""
        if not any(EDITED in message for _, message in found):
            return found
        seqs, texts = zip(*found, strict=True)
        with reading():
            async with self._engine.connect() as connection:
                texts_then = await as_left(connection, conversation_id, until_seq, texts)
        return list(zip(seqs, texts_then, strict=True))

    async def of_user(
        self, user_id: int, after: str, upto: str | None, limit: int
    ) -> Sequence[tuple[str, View]]:
        """See `sync.Conversations.of_user`."""
        query = (
            _VIEWS.where(_MINE.user_id == user_id, _MINE.conversation_id > after)
            .order_by(_MINE.conversation_id)
            .limit(limit)
        )
        if upto is not None:
            query = query.where(_MINE.conversation_id <= upto)
        with reading():
            async with self._engine.connect() as connection:
                rows = map(_decode, await connection.scalars(query))
                return [(conversation_id, view) for _, conversation_id, view in rows]

    async def views(self, keys: Iterable[Key]) -> Sequence[View | None]:
        """Views of many users at once. Raises: Unavailable."""
        wanted = list(keys)
        # Literals: with hundreds of parameters SQLAlchemy's own way costs more than the query.
        where = " OR ".join(
            _IS % (user_id, literals([conversation_id]))
            for user_id, conversation_id in dict.fromkeys(wanted)
        )
        if not where:
            return []
        with reading():
            async with self._reader.connect() as connection:
                rows = await connection.exec_driver_sql(
                    f"{self._views_of} WHERE {where}", execution_options={"no_parameters": True}
                )
                found = {
                    (user_id, conversation_id): view
                    for user_id, conversation_id, view in map(_decode, rows.scalars())
                }
        return [found.get(key) for key in wanted]

    async def _read(self, parts: Sequence[Part]) -> Sequence[Messages]:
        # No transaction around these: a month that begins in between would add to the end, and a page may end early.
        found: dict[tuple[str, int], bytes] = {}
        with reading():
            async with self._reader.connect() as connection:
                for month, held in (await by_month(connection, parts)).items():
                    for row in await rows_within(connection, month, held):
                        found[row.conversation_id, row.seq] = json_of(row)
        return [
            [(seq, found[c, seq]) for seq in range(first, last + 1) if (c, seq) in found]
            for c, first, last in parts
        ]
