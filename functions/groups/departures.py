"""Deleted accounts leave their groups: `profile` notes who has gone, in the transaction that deletes him."""

import asyncio
import logging

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.groups.announce import Announcer
from functions.groups.change import Changes
from functions.groups.store import SqlGroups
from schemas.rights import Role
from schemas.types import Empty
from shared import tables
from shared.adapters.sql import reading, writing
from shared.errors import AppError, NotFound
from shared.function import Context
from shared.ids import now_ms

log = logging.getLogger(__name__)

SWEEP_S = 5.0
MOST = 100
"""Accounts of one round."""

_ROW = tables.departure.c


class Departures:
    """Gives up the seats of deleted accounts. Several processes may do it at once: each seat is given up once."""

    def __init__(self, engine: AsyncEngine, changes: Changes, announcer: Announcer) -> None:
        self._engine = engine
        self._changes = changes
        self._groups = SqlGroups(engine)
        self._announcer = announcer

    async def sweep_forever(self) -> None:
        """Looks again and again: a crash in between is made good by the next round."""
        while True:
            try:
                await self.sweep()
            except AppError as error:
                log.warning("seats of deleted accounts wait: %s", error)
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """One round. Raises: Unavailable, UnknownOutcome."""
        with reading():
            async with self._engine.connect() as connection:
                user_ids = (await connection.execute(select(_ROW.user_id).limit(MOST))).scalars()
                gone = list(user_ids)
        for user_id in gone:
            for group_id in await self._groups.ids_of(user_id):
                await self._leave(group_id, user_id)
            async with writing(self._engine) as connection:
                await connection.execute(delete(tables.departure).where(_ROW.user_id == user_id))

    async def _leave(self, group_id: int, user_id: int) -> None:
        ctx = Context(user_id, None, now_ms())
        try:
            async with self._changes.of(group_id, ctx) as change:
                if change.me is None:
                    return
                if change.me.role is Role.OWNER:
                    # It was handed over to him while he went: nobody is left who may.
                    members = await change.remove_all()
                    await change.set(dissolved_ms=ctx.at)
                    await change.say("group.dissolved", Empty(), left=members)
                else:
                    await change.remove(change.me, "left")
                    await change.say("group.left", Empty(), left=[user_id], user_ids=[user_id])
        except NotFound:  # dissolved meanwhile
            return
        await self._announcer.announce(change, Empty())
