"""The archive in SQL: what users see of conversations (coalesced), and messages out of the monthly tables."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.former import EDITED, as_left
from functions.history.pages import Stored
from functions.history.view import Head, Mine, View
from shared import tables
from shared.adapters.bulk import literals
from shared.adapters.sql import reading, snapshot
from shared.coalesce import Coalescer
from shared.lookup import message_of

_HEAD, _MINE, _MONTH = (
    tables.conversation.c,
    tables.user_conversation.c,
    tables.conversation_month.c,
)
_VIEWS = select(
    _HEAD.conversation_id,
    _HEAD.max_seq,
    _HEAD.max_rev,
    _HEAD.message_rev,
    _MINE.user_id,
    _MINE.read_seq,
    _MINE.delivered_seq,
    _MINE.from_seq,
    _MINE.until_seq,
    _MINE.cleared_seq,
).join_from(
    tables.user_conversation,
    tables.conversation,
    _MINE.conversation_id == _HEAD.conversation_id,
)

Key = tuple[int, str]
"""user_id, conversation_id."""


class SqlArchive:
    """Implements `pages.Archive` and `sync.Conversations`."""

    def __init__(self, engine: AsyncEngine, reader: AsyncEngine | None = None) -> None:
        """reader: for single statements; the same engine unless given."""
        self._engine = engine
        self._reader = reader or engine
        self._views_of = str(_VIEWS.compile(dialect=engine.dialect))
        self._views: Coalescer[Key, View | None] = Coalescer(self.views)

    def view(self, user_id: int, conversation_id: str) -> Awaitable[View | None]:
        """See `view.Views.view`."""
        return self._views.ask((user_id, conversation_id))

    async def read(self, conversation_id: str, first: int, last: int) -> Stored:
        """See `pages.Archive.read`. Only the months that hold the span are read."""
        of_months = (
            select(_MONTH.month, _MONTH.first_seq, _HEAD.message_rev)
            .join_from(
                tables.conversation_month,
                tables.conversation,
                _MONTH.conversation_id == _HEAD.conversation_id,
            )
            .where(_MONTH.conversation_id == conversation_id, _MONTH.first_seq <= last)
            .order_by(_MONTH.month)
        )
        found: list[tuple[int, bytes]] = []
        async with snapshot(self._engine) as connection:
            months = (await connection.execute(of_months)).all()
            for i, (month, _, _) in enumerate(months):
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
        return Stored(found, months[0].message_rev if months else 0)

    async def as_left(
        self, conversation_id: str, until_seq: int, messages: Sequence[bytes]
    ) -> list[bytes]:
        """See `pages.Archive.as_left`."""
        if not any(EDITED in message for message in messages):
            return list(messages)
        with reading():
            async with self._engine.connect() as connection:
                return await as_left(connection, conversation_id, until_seq, messages)

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
                return [
                    (row.conversation_id, _view(row)) for row in await connection.execute(query)
                ]

    async def views(self, keys: Iterable[Key]) -> Sequence[View | None]:
        """Views of many users at once. Raises: Unavailable."""
        wanted = list(keys)
        # Literals: with hundreds of parameters SQLAlchemy's own way costs more than the query.
        where = " OR ".join(
            f"({_MINE.user_id}={user_id} AND {_MINE.conversation_id}={literals([conversation_id])})"
            for user_id, conversation_id in dict.fromkeys(wanted)
        )
        if not where:
            return []
        with reading():
            async with self._reader.connect() as connection:
                rows = await connection.exec_driver_sql(
                    f"{self._views_of} WHERE {where}", execution_options={"no_parameters": True}
                )
                found = {(row.user_id, row.conversation_id): _view(row) for row in rows}
        return [found.get(key) for key in wanted]


def encode(row: Row[tuple[Any, ...]]) -> bytes:
    """A row as the JSON of schemas.messages.Message, byte for byte as the timeline has pushed it."""
    return msgspec.json.encode(message_of(row))


def _view(row: Any) -> View:
    return View(
        Head(row.max_seq, row.max_rev, row.message_rev),
        Mine(row.read_seq, row.delivered_seq, row.from_seq, row.until_seq, row.cleared_seq),
    )
