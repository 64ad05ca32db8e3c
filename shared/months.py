"""The monthly tables `message_<YYYYMM>`: made ahead, outside any transaction (DDL commits implicitly)."""

from collections.abc import Iterable

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.schema import create_missing, schema_lock
from shared.tables import message_table


def next_month(month: int) -> int:
    """202612 → 202701."""
    return month + 1 if month % 100 < 12 else month + 89


async def ensure_months(engine: AsyncEngine, months: Iterable[int]) -> None:
    """Creates the tables that are missing. Several processes may call it at once."""
    wanted = [message_table(month) for month in sorted(set(months))]

    def create(connection: Connection) -> None:
        with schema_lock(connection):
            create_missing(connection, wanted)

    async with engine.begin() as connection:
        await connection.run_sync(create)
