"""Many rows at once. On MySQL and MariaDB in one statement, written out as text.

aiomysql's `executemany` costs 20 µs for a row of `message_<month>`, most of it calls per value; this costs a quarter.
Strings are escaped by PyMySQL itself, which relies on the backslash being an escape: `shared.adapters.sql` sets the
session's `sql_mode`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from pymysql.converters import escape_string
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

MAX_STATEMENT = 1_000_000
"""Characters of one statement: at three bytes each it is still below every server's `max_allowed_packet`."""

_LITERAL: Mapping[type, Callable[[Any], str]] = {
    int: str,
    str: lambda value: f"'{escape_string(value)}'",
    bytes: lambda value: f"x'{value.hex()}'",
    NoneType: lambda _: "NULL",
}


def literals(values: Iterable[Any]) -> str:
    """Values with commas between them. Also for SQLite, as long as strings are ids, without quotes or backslashes."""
    return ",".join([_LITERAL[type(value)](value) for value in values])


def inserts(head: str, rows: Iterable[Sequence[Any]], tail: str) -> Iterator[str]:
    """`head` (`INSERT INTO … VALUES `), the rows, `tail`; as many statements as their length needs.

    Values are int, str, bytes or None. Raises: KeyError for any other type.
    """
    parts: list[str] = []
    length = 0
    for row in rows:
        part = f"({literals(row)})"
        if parts and length + len(part) > MAX_STATEMENT:
            yield f"{head}{','.join(parts)}{tail}"
            parts, length = [], 0
        parts.append(part)
        length += len(part)
    if parts:
        yield f"{head}{','.join(parts)}{tail}"


class Inserter:
    """INSERT of many rows in SQLite, MySQL and MariaDB."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._dialect = engine.dialect
        self._sqlite = engine.dialect.name == "sqlite"
        self._statements: dict[tuple[str, int], str] = {}

    async def insert(
        self,
        connection: AsyncConnection,
        table: Table,
        rows: Sequence[tuple[Any, ...]],
        otherwise: str = "",
    ) -> None:
        """Adds rows, each with the first columns of the table in order, in as few statements as they fit in.

        otherwise: from `unless_there` or `replacing`; without it a row that is there already is an IntegrityError.
        """
        if not rows:
            return
        sql = self._statement(table, len(rows[0]))
        if self._sqlite:
            await connection.exec_driver_sql(sql + otherwise, list(rows))
            return
        head, values, _ = sql.partition(" VALUES ")
        for statement in inserts(head + values, rows, otherwise):
            await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def unless_there(self, column: str) -> str:
        """Leaves a row that is there as it is; `column` is any of the table's.

        Not INSERT IGNORE, which would cut what is too long.
        """
        return (
            " ON CONFLICT DO NOTHING"
            if self._sqlite
            else f" ON DUPLICATE KEY UPDATE {column}={column}"
        )

    def replacing(self, *columns: str, newer: tuple[str, str] | None = None) -> str:
        """Puts these columns into a row that is there.

        newer: one more column, and the one of which the row must have a smaller value for that.
        """
        mark, new = (
            (" ON CONFLICT DO UPDATE SET ", "excluded.{}")
            if self._sqlite
            else (" ON DUPLICATE KEY UPDATE ", "VALUES({})")
        )
        sets = [f"{c}={new.format(c)}" for c in columns]
        if newer is not None:
            column, by = newer
            case = f"CASE WHEN {new.format(by)}>{by} THEN {new.format(column)} ELSE {column} END"
            sets.insert(
                0, f"{column}={case}"
            )  # MySQL goes from left to right: `by` is still the old one
        return mark + ",".join(sets)

    def _statement(self, table: Table, columns: int) -> str:
        """Compiled once: SQLAlchemy's own way with parameters would cost more than the rest of the timeline."""
        sql = self._statements.get((table.name, columns))
        if sql is None:
            sql = self._statements[table.name, columns] = str(
                table.insert().compile(dialect=self._dialect, column_keys=table.c.keys()[:columns])
            )
        return sql
