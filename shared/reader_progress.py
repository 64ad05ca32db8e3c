"""How far a reader of the log has come: one row per partition in `reader_progress`."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.adapters.sql import reading, to_the_end, writing
from shared.tables import reader_progress

_UPSERT_SQLITE = text(
    "INSERT INTO reader_progress (reader, `partition`, `next`) VALUES (:reader, :partition, :next)"
    " ON CONFLICT DO UPDATE SET `next`=excluded.`next`"
)
_UPSERT_MYSQL = text(
    "INSERT INTO reader_progress (reader, `partition`, `next`) VALUES (:reader, :partition, :next)"
    " ON DUPLICATE KEY UPDATE `next`=VALUES(`next`)"
)


class Progress(Protocol):
    """Both methods raise Unavailable or UnknownOutcome if the storage is away, and may be repeated."""

    async def load(self, partitions: Iterable[int]) -> dict[int, int]:
        """The next offset of each partition; 0 if it was never read."""

    async def store(self, offsets: Mapping[int, int]) -> None:
        """Says that all before these offsets is done. An owner that comes late may set it back: that only repeats."""


class SqlProgress:
    """`Progress` in SQL, which is there on every stack; committed offsets of Kafka are not."""

    def __init__(self, engine: AsyncEngine, reader: str) -> None:
        self._engine = engine
        self._reader = reader
        self._upsert = _UPSERT_SQLITE if engine.dialect.name == "sqlite" else _UPSERT_MYSQL

    async def load(self, partitions: Iterable[int]) -> dict[int, int]:
        """See `Progress.load`."""
        c = reader_progress.c
        wanted = list(partitions)
        query = select(c.partition, c.next).where(c.reader == self._reader, c.partition.in_(wanted))
        with reading():
            async with self._engine.connect() as connection:
                rows = await connection.execute(query)
                return dict.fromkeys(wanted, 0) | {row[0]: row[1] for row in rows}

    async def store(self, offsets: Mapping[int, int]) -> None:
        """See `Progress.store`."""
        rows: list[dict[str, str | int]] = [
            {"reader": self._reader, "partition": partition, "next": offset}
            for partition, offset in offsets.items()
        ]
        await to_the_end(self._write(rows))

    async def _write(self, rows: list[dict[str, str | int]]) -> None:
        async with writing(self._engine) as connection:
            await connection.execute(self._upsert, rows)
