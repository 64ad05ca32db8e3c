"""Many rows in one statement of MySQL or MariaDB, written out as text.

aiomysql's `executemany` costs 20 µs for a row of `message_<month>`, most of it calls per value; this costs a quarter.
Strings are escaped by PyMySQL itself, which relies on the backslash being an escape: `shared.adapters.sql` sets the
session's `sql_mode`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from pymysql.converters import escape_string

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
