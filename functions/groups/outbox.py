"""The way of a committed change into the log: `group_outbox`, so that no crash in between can lose it.

A group's records enter the log in the order of their rows: whoever appends one appends all before it first. Within a
process one round at a time does it for all that wait; two processes may append the same one, and the timeline takes it
once (`client_msg_id`).
"""

import asyncio
import logging
from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.records import SystemRequested
from shared import tables
from shared.adapters.sql import reading, writing
from shared.coalesce import Coalescer
from shared.errors import AppError, UnknownOutcome
from shared.gate import Copies, group_key, member_key
from shared.ids import now_ms
from shared.log import REQUESTS, LogWriter, NotAppendedError

log = logging.getLogger(__name__)

SWEEP_S = 5.0
OLD_MS = 10_000
"""Age at which a row was left behind: its process would have appended it by now."""
MOST_GROUPS = 100
"""Groups of one round of the sweep."""

_ROW = tables.group_outbox.c
_decode = msgspec.json.Decoder(SystemRequested).decode


class Outbox:
    """Appends what is committed."""

    def __init__(self, engine: AsyncEngine, writer: LogWriter, copies: Copies) -> None:
        self._engine = engine
        self._writer = writer
        self._copies = copies
        self._rounds = Coalescer(self._round, parallel=1)

    async def flush(self, group_id: int) -> None:
        """Returns when everything that stands here of this group is in the log.

        Raises: UnknownOutcome. The change is committed: the sweep brings it into the log.
        """
        try:
            await self._rounds.ask(group_id)
        except (NotAppendedError, AppError) as error:
            log.warning("a change of group %d waits for the log: %s", group_id, error)
            raise UnknownOutcome("the change is made, and not announced yet") from error

    async def sweep_forever(self) -> None:
        """Appends what crashed processes left behind."""
        while True:
            try:
                await self.sweep()
            except (NotAppendedError, AppError) as error:
                log.warning("the outbox of groups waits: %s", error)
            await asyncio.sleep(SWEEP_S)

    async def sweep(self, older_than_ms: int = OLD_MS) -> None:
        """One round of it. Rights first: what crashed may not have removed their copies."""
        query = (
            select(_ROW.group_id, _ROW.record)
            .where(_ROW.created_ms <= now_ms() - older_than_ms)
            .order_by(_ROW.id)
            .limit(MOST_GROUPS)
        )
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        for group_id in dict.fromkeys(row.group_id for row in rows):
            changes = [_decode(row.record) for row in rows if row.group_id == group_id]
            users = {u for c in changes for u in (*c.joined, *c.left, *_named(c))}
            await self._copies.forget(
                group_key(group_id), *(member_key(group_id, u) for u in users)
            )
            await self._rounds.ask(group_id)
            log.warning("announced %d changes of group %d that waited", len(changes), group_id)

    async def _round(self, group_ids: list[int]) -> Sequence[None]:
        query = (
            select(_ROW.id, _ROW.group_id, _ROW.record)
            .where(_ROW.group_id.in_(set(group_ids)))
            .order_by(_ROW.id)
        )
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        lanes: dict[int, list[str]] = {}
        for row in rows:
            lanes.setdefault(row.group_id, []).append(row.record)
        await asyncio.gather(*(self._append(*lane) for lane in lanes.items()))
        if rows:
            async with writing(self._engine) as connection:
                await connection.execute(
                    delete(tables.group_outbox).where(_ROW.id.in_([row.id for row in rows]))
                )
        return [None] * len(group_ids)

    async def _append(self, group_id: int, records: list[str]) -> None:
        for record in records:
            await self._writer.append(REQUESTS, f"g_{group_id}", record.encode())


def _named(change: SystemRequested) -> list[int]:
    """Whom a change is about, beside those who come and go."""
    content = msgspec.json.decode(change.content)
    return [content["user_id"]] if "user_id" in content else []
