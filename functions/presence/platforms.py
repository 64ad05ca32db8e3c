"""Kinds of devices, from their sessions in SQL."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.types import Platform
from shared.adapters.sql import reading
from shared.tables import session


class SqlPlatforms:
    """Implements `handlers.Platforms`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, session_ids: Sequence[str]) -> list[Platform]:
        """See `handlers.Platforms`."""
        if not session_ids:
            return []
        query = select(session.c.id, session.c.platform).where(session.c.id.in_(set(session_ids)))
        with reading():
            async with self._engine.connect() as connection:
                rows = await connection.execute(query)
                found: dict[str, Platform] = {row.id: row.platform for row in rows}
        return [found.get(session_id, "other") for session_id in session_ids]
