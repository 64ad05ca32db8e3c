"""Parts of conversations in the monthly tables: one query for each month that holds some, over many at once.

Statements are written out: to compile and bind so many values costs SQLAlchemy more than the server needs to answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Dialect, Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared import tables
from shared.adapters.bulk import literals
from shared.lookup import MessageRow, decode_row, packed_rows


class Part(NamedTuple):
    """Messages of one conversation between two `seq`, both included."""

    conversation_id: str
    first: int
    last: int


async def by_month(
    connection: AsyncConnection, parts: Iterable[Part]
) -> Mapping[int, Sequence[Part]]:
    """In which monthly tables these parts lie; a part may lie in several."""
    wanted: dict[str, list[Part]] = {}
    for part in parts:
        if part.first <= part.last:
            wanted.setdefault(part.conversation_id, []).append(part)
    if not wanted:
        return {}
    rows: Any = await connection.exec_driver_sql(
        "SELECT conversation_id, month, first_seq FROM conversation_month"  # noqa: S608 - ids and numbers
        f" WHERE conversation_id IN ({literals(wanted)}) ORDER BY month DESC",
        execution_options={"no_parameters": True},
    )
    found: dict[int, list[Part]] = {}
    for conversation_id, month, first_seq in rows:
        left = wanted[conversation_id]
        found.setdefault(month, []).extend(part for part in left if first_seq <= part.last)
        # The others lie in no earlier month.
        wanted[conversation_id] = [part for part in left if part.first < first_seq]
    return {month: held for month, held in found.items() if held}


async def rows_within(
    connection: AsyncConnection, month: int, parts: Iterable[Part]
) -> Sequence[MessageRow]:
    """What one monthly table holds of these parts, in no order."""
    rows = await connection.exec_driver_sql(
        f"{_rows_of(connection.dialect, month)} WHERE {_where(parts, tables.message_table(month))}",
        execution_options={"no_parameters": True},
    )
    return [decode_row(row) for (row,) in rows]


def within(table: Table, parts: Iterable[Part]) -> ColumnElement[bool]:
    """Condition on the rows of these parts."""
    return text(f"({_where(parts, table)})")  # type: ignore[return-value]


def _where(parts: Iterable[Part], table: Table) -> str:
    name = table.name
    return " OR ".join(
        f"({name}.conversation_id={literals([conversation_id])} AND {name}.seq BETWEEN {first} AND {last})"
        for conversation_id, first, last in dict.fromkeys(parts)
    )


@cache
def _rows_of(dialect: Dialect, month: int) -> str:
    return str(packed_rows(month).compile(dialect=dialect))
