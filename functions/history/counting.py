"""Counts unread messages and mentions of many conversations at once."""

from collections.abc import Iterable, Sequence

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from functions.history.parts import Part, within
from shared import tables

EVERYBODY = 0
"""User of `message_mention` for "all"."""


Counts = Sequence[tuple[str, int]]
"""(conversation_id, number); none for a conversation that has none."""


async def unread(
    connection: AsyncConnection, month: int, parts: Iterable[Part], user_id: int
) -> Counts:
    """Messages that somebody else has written and not recalled."""
    table = tables.message_table(month)
    c = table.c
    query = (
        select(c.conversation_id, func.count())
        .where(within(table, parts), c.sender_id != user_id, c.status == 0, c.msg_type != 0)
        .group_by(c.conversation_id)
    )
    return [(conversation_id, n) for conversation_id, n in await connection.execute(query)]


async def mentions(
    connection: AsyncConnection, month: int, parts: Iterable[Part], user_id: int
) -> Counts:
    """Those of them that address the user, or everybody."""
    table, mention = tables.message_table(month), tables.message_mention
    c, m = table.c, mention.c
    query = (
        select(m.conversation_id, func.count(m.seq.distinct()))
        .join_from(mention, table, (c.conversation_id == m.conversation_id) & (c.seq == m.seq))
        .where(
            # Twice, not `IN`: only so is every part a range of the primary key.
            or_(
                and_(m.user_id == user_id, within(mention, parts)),
                and_(m.user_id == EVERYBODY, within(mention, parts)),
            ),
            c.sender_id != user_id,
            c.status == 0,
            c.msg_type != 0,
        )
        .group_by(m.conversation_id)
    )
    return [(conversation_id, n) for conversation_id, n in await connection.execute(query)]
