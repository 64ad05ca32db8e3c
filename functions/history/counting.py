"""Counts unread messages and mentions: one query for each month that holds some, over many conversations at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Table, and_, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import tables
from shared.adapters.bulk import literals

EVERYBODY = 0
"""User of `message_mention` for "all"."""


class Part(NamedTuple):
    """Messages of one conversation between two `seq`, both included."""

    conversation_id: str
    first: int
    last: int


Counts = Sequence[tuple[str, int]]
"""(conversation_id, number); none for a conversation that has none."""


async def by_month(
    connection: AsyncConnection, parts: Iterable[Part]
) -> Mapping[int, Sequence[Part]]:
    """In which monthly tables these parts lie; a part may lie in several."""
    wanted = {part.conversation_id: part for part in parts if part.first <= part.last}
    if not wanted:
        return {}
    c = tables.conversation_month.c
    query = (
        select(c.conversation_id, c.month, c.first_seq)
        .where(text(f"{c.conversation_id} IN ({literals(wanted)})"))
        .order_by(c.month.desc())
    )
    found: dict[int, list[Part]] = {}
    begun: set[str] = set()
    for conversation_id, month, first_seq in await connection.execute(query):
        part = wanted[conversation_id]
        if conversation_id not in begun and first_seq <= part.last:
            found.setdefault(month, []).append(part)
            if first_seq <= part.first:
                begun.add(conversation_id)  # the part lies in no earlier month
    return found


def within(table: Table, parts: Iterable[Part]) -> ColumnElement[bool]:
    """Condition on the rows of these parts. Literals: so many parameters would cost more than the query."""
    c = table.c
    return text(  # type: ignore[return-value]
        "("
        + " OR ".join(
            f"({c.conversation_id}={literals([part.conversation_id])}"
            f" AND {c.seq} BETWEEN {part.first} AND {part.last})"
            for part in parts
        )
        + ")"
    )


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
