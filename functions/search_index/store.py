"""The index in SQL: one row per message and token in `message_token`."""

from sqlalchemy import and_, delete, or_
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.search_index.indexer import Entry
from shared.adapters.bulk import Inserter
from shared.adapters.sql import to_the_end, writing
from shared.tables import message_token

MAX_DELETED = 200
"""Messages in one DELETE."""


class SqlTokens:
    """Implements `indexer.Tokens`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._rows = Inserter(engine)

    async def store(self, entries: list[Entry]) -> None:
        """See `indexer.Tokens.store`."""
        await to_the_end(self._write(entries))

    async def _write(self, entries: list[Entry]) -> None:
        c = message_token.c
        stale = [
            and_(c.conversation_id == e.conversation_id, c.msg_id == e.msg_id)
            for e in entries
            if e.stale
        ]
        # In order of the key: two owners that do the same for a moment wait for each other instead of dead-locking.
        rows = sorted((e.conversation_id, token, e.msg_id) for e in entries for token in e.tokens)
        async with writing(self._engine) as connection:
            for i in range(0, len(stale), MAX_DELETED):
                await connection.execute(
                    delete(message_token).where(or_(*stale[i : i + MAX_DELETED]))
                )
            await self._rows.insert(
                connection, message_token, rows, self._rows.unless_there("msg_id")
            )
