"""Groups and their members: what the gate knows of them, and how SQL says it."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.rights import Role
from shared import tables
from shared.gate.copies import Copies, Loader
from shared.gate.keys import group_key, member_key

OPEN, QUIET = "1", "2"
"""Values of a group: all may write, or only those whom `write_muted` lets. One that is dissolved or never was, none."""
STRANGER = "-"
"""Value of a user who is no member."""

Seat = tuple[int, int]
"""Group and user."""


class Standing(NamedTuple):
    """What a user is in a group. `muted_ms`: until when he may not write, Unix ms."""

    role: Role
    muted_ms: int = 0

    @classmethod
    def read(cls, value: str) -> Self | None:
        """From a seat's value; None: no member."""
        if value == STRANGER:
            return None
        role, _, muted_ms = value.partition(":")
        return cls(Role(int(role)), int(muted_ms or 0))

    def value(self) -> str:
        """As it is kept: `<role>`, or `<role>:<muted_ms>` of one who was ever muted."""
        return f"{self.role:d}:{self.muted_ms}" if self.muted_ms else f"{self.role:d}"


class GroupCopies:
    """Loads what Redis does not know."""

    def __init__(self, copies: Copies, engine: AsyncEngine) -> None:
        self._engine = engine
        self.groups: Loader[int] = Loader(copies, group_key, self._living)
        self.seats: Loader[Seat] = Loader(copies, lambda seat: member_key(*seat), self._standings)

    async def _living(self, group_ids: Collection[int]) -> Mapping[int, str]:
        row = tables.group.c
        query = select(row.id, row.mute_all).where(
            row.id.in_(group_ids), row.dissolved_ms.is_(None)
        )
        async with self._engine.connect() as connection:
            return {
                group_id: QUIET if quiet else OPEN
                for group_id, quiet in await connection.execute(query)
            }

    async def _standings(self, seats: Collection[Seat]) -> Mapping[Seat, str]:
        row = tables.group_member.c
        query = select(row.group_id, row.user_id, row.role, row.muted_ms).where(
            tuple_(row.group_id, row.user_id).in_(seats)
        )
        found = dict.fromkeys(seats, STRANGER)
        async with self._engine.connect() as connection:
            for group_id, user_id, role, muted_ms in await connection.execute(query):
                found[group_id, user_id] = Standing(Role(role), muted_ms).value()
        return found
