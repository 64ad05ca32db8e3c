"""The words of messages in SQL, as `search_index` has written them."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.former import before_leaving
from functions.history.view import Mine
from shared import tables
from shared.adapters.bulk import literals
from shared.adapters.sql import reading
from shared.lookup import MessageRow, by_ids
from shared.words import Term

MAX_CONDITIONS = 6
"""Tokens that SQL compares; the rest is left to the message itself."""


class SqlIndex:
    """Implements `searching.Index`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def mine(self, user_id: int, conversation_id: str | None) -> Mapping[str, Mine]:
        """See `searching.Index.mine`."""
        c = tables.user_conversation.c
        query = select(
            c.conversation_id,
            c.read_seq,
            c.delivered_seq,
            c.from_seq,
            c.until_seq,
            c.cleared_seq,
        ).where(c.user_id == user_id)
        if conversation_id is not None:
            query = query.where(c.conversation_id == conversation_id)
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        return {row[0]: Mine(*row[1:]) for row in rows}

    async def candidates(
        self, conversations: Sequence[str], terms: Sequence[Term], before: int, limit: int
    ) -> Sequence[MessageRow]:
        """See `searching.Index.candidates`."""
        query = _candidates(conversations, terms, before, limit)
        with reading():
            async with self._engine.connect() as connection:
                found = await connection.exec_driver_sql(
                    query, execution_options={"no_parameters": True}
                )
                ids = [row[0] for row in found]
                rows = await by_ids(connection, ids)
        return [rows[i] for i in ids if i in rows]

    async def edited_late(
        self, rows: Sequence[MessageRow], mine: Mapping[str, Mine]
    ) -> AbstractSet[int]:
        """See `searching.Index.edited_late`."""
        by_group: dict[str, list[int]] = {}
        for row in rows:
            if row.edited_ms is not None and mine[row.conversation_id].until_seq is not None:
                by_group.setdefault(row.conversation_id, []).append(row.id)
        late: set[int] = set()
        if by_group:
            with reading():
                async with self._engine.connect() as connection:
                    for conversation_id, ids in by_group.items():
                        until = mine[conversation_id].until_seq or 0
                        late |= (
                            await before_leaving(connection, conversation_id, until, ids)
                        ).keys()
        return late


def _candidates(
    conversations: Sequence[str], terms: Sequence[Term], before: int, limit: int
) -> str:
    """Starts with the longest token, which the fewest messages have. Literals, since a user may have a thousand
    conversations: with as many parameters SQLAlchemy's own way costs more than the query.
    """
    wanted = sorted(
        {(token, term.prefix) for term in terms for token in term.tokens},
        key=lambda one: (-len(one[0]), one),
    )[:MAX_CONDITIONS]
    first, *others = wanted
    also = "".join(
        f" AND EXISTS (SELECT 1 FROM message_token o WHERE o.conversation_id=t.conversation_id"  # noqa: S608 - no text of a user's but as hex
        f" AND o.msg_id=t.msg_id AND {_is('o', *other)})"
        for other in others
    )
    return (
        "SELECT DISTINCT t.msg_id FROM message_token t"  # noqa: S608 - likewise
        f" WHERE t.conversation_id IN ({literals(conversations)}) AND {_is('t', *first)}"
        f" AND t.msg_id < {before}{also} ORDER BY t.msg_id DESC LIMIT {limit}"
    )


def _is(table: str, token: bytes, prefix: bool) -> str:
    """Compares a token. No token has a byte 0xff, which UTF-8 never uses."""
    if not prefix:
        return f"{table}.token=x'{token.hex()}'"
    return f"{table}.token>=x'{token.hex()}' AND {table}.token<x'{token.hex()}ff'"
