"""What has changed after a `rev`: messages as they are now, in order, and how far the members have read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.history.former import as_left
from functions.history.store import Key, SqlArchive
from functions.history.view import Mine
from schemas.messages import ReadState
from shared import tables
from shared.adapters.sql import snapshot
from shared.ids import members_of_private
from shared.lookup import by_ids, json_of

MAX_BYTES = 256 << 10
"""Most bytes of changes in one answer, which holds messages too."""
CHUNK = 500
"""Rows read at once: many of them may be older changes of the same messages."""


class Changes(NamedTuple):
    """Changed messages as JSON, ascending by `rev`; nothing up to `upto` is missing. `rev`: the newest there is."""

    messages: Sequence[bytes]
    upto: int
    rev: int


class ChangeReader(Protocol):
    """Reads changes and read positions. Both raise Unavailable."""

    async def changes(
        self, conversation_id: str, mine: Mine, after_rev: int, limit: int
    ) -> Changes:
        """The messages that somebody who sees `mine` may see, and whose newest `rev` is greater."""

    async def reads(
        self, user_id: int, conversations: Iterable[str]
    ) -> Mapping[str, list[ReadState]]:
        """Positions of both members of private conversations, of groups only one's own."""


class SqlChanges:
    """Implements `ChangeReader`."""

    def __init__(self, engine: AsyncEngine, archive: SqlArchive) -> None:
        self._engine = engine
        self._archive = archive

    async def changes(
        self, conversation_id: str, mine: Mine, after_rev: int, limit: int
    ) -> Changes:
        """See `ChangeReader.changes`.

        A message that has changed several times has several rows and appears once, with its newest; so rows are read
        on until the page is full.
        """
        c = tables.conversation.c
        head = select(c.max_rev).where(c.conversation_id == conversation_id)
        found: list[bytes] = []
        size, upto = 0, after_rev
        async with snapshot(self._engine) as connection:
            rev = (await connection.execute(head)).scalar() or 0
            while upto < rev:
                rows = await _rows(connection, conversation_id, upto)
                messages = await by_ids(connection, {msg_id for _, msg_id in rows})
                for at, msg_id in rows:
                    row = messages.get(msg_id)
                    if row is not None and row.rev == at and mine.sees(row.seq):
                        message = json_of(row)
                        if mine.until_seq is not None:
                            (message,) = await as_left(
                                connection, conversation_id, mine.until_seq, [message]
                            )
                        size += len(message)
                        if found and (size > MAX_BYTES or len(found) == limit):
                            return Changes(found, upto, rev)
                        found.append(message)
                    upto = at
                if len(rows) < CHUNK:
                    upto = rev  # what is left are reads
        return Changes(found, max(upto, after_rev), rev)

    async def reads(
        self, user_id: int, conversations: Iterable[str]
    ) -> Mapping[str, list[ReadState]]:
        """See `ChangeReader.reads`."""
        keys: list[Key] = [
            (member, conversation_id)
            for conversation_id in conversations
            for member in members_of_private(conversation_id) or (user_id,)
        ]
        reads: dict[str, list[ReadState]] = {}
        for (member, conversation_id), view in zip(
            keys, await self._archive.views(keys), strict=True
        ):
            if view is not None:
                reads.setdefault(conversation_id, []).append(
                    ReadState(member, view.mine.read_seq, view.mine.delivered_seq)
                )
        return reads


async def _rows(
    connection: AsyncConnection, conversation_id: str, after_rev: int
) -> Sequence[tuple[int, int]]:
    """(rev, msg_id) of the next changes."""
    c = tables.message_change.c
    query = (
        select(c.rev, c.msg_id)
        .where(c.conversation_id == conversation_id, c.rev > after_rev)
        .order_by(c.rev)
        .limit(CHUNK)
    )
    return [(row.rev, row.msg_id) for row in await connection.execute(query)]
