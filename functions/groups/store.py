"""Groups read from SQL; what changes them stands in `change`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.groups.rows import GROUP, SEAT, Seat, info
from schemas.groups import GroupApplication, GroupInfo
from schemas.internal import Among, Membership, UserMemberships
from shared import tables
from shared.adapters.sql import reading
from shared.errors import NotFound

_GROUP = tables.group.c
_SEAT = tables.group_member.c
_WAITING = tables.group_application.c


class SqlGroups:
    """All methods raise Unavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, group_id: int, user_id: int) -> tuple[GroupInfo, Seat | None]:
        """A group, and what a user is in it. Raises: NotFound."""
        async with self._snapshot() as connection:
            living = GROUP.where(_GROUP.id == group_id, _GROUP.dissolved_ms.is_(None))
            row = (await connection.execute(living)).first()
            if row is None:
                raise NotFound(f"no group {group_id}", field="id")
            query = SEAT.where(_SEAT.group_id == group_id, _SEAT.user_id == user_id)
            seat = (await connection.execute(query)).first()
        return info(row), None if seat is None else Seat.of(seat)

    async def of_user(
        self, user_id: int, after: int, limit: int, changed_ms: int
    ) -> Sequence[tuple[GroupInfo, Seat]]:
        """A user's groups by ascending id, greater than `after`, that changed at `changed_ms` or later."""
        query = (
            GROUP.add_columns(*SEAT.selected_columns)
            .join(tables.group_member, _SEAT.group_id == _GROUP.id)
            .where(
                _SEAT.user_id == user_id, _SEAT.group_id > after, _GROUP.changed_ms >= changed_ms
            )
            .order_by(_SEAT.group_id)
            .limit(limit)
        )
        width = len(GROUP.selected_columns)
        async with self._snapshot() as connection:
            rows = (await connection.execute(query)).all()
        return [(info(row[:width]), Seat.of(row[width:])) for row in rows]

    async def ids_of(self, user_id: int) -> list[int]:
        """All groups of a user, by id."""
        query = select(_SEAT.group_id).where(_SEAT.user_id == user_id).order_by(_SEAT.group_id)
        async with self._snapshot() as connection:
            return list((await connection.execute(query)).scalars())

    async def members(self, group_id: int, after: int, limit: int) -> Sequence[Seat]:
        """Members by ascending user id, greater than `after`."""
        query = (
            SEAT.where(_SEAT.group_id == group_id, _SEAT.user_id > after)
            .order_by(_SEAT.user_id)
            .limit(limit)
        )
        async with self._snapshot() as connection:
            return [Seat.of(row) for row in await connection.execute(query)]

    async def applications(
        self, group_id: int, after: tuple[int, int], limit: int
    ) -> Sequence[GroupApplication]:
        """Those that wait, oldest first, after (created_at, user_id)."""
        row = _WAITING
        later = or_(
            row.created_ms > after[0], and_(row.created_ms == after[0], row.user_id > after[1])
        )
        query = (
            select(row.group_id, row.user_id, row.created_ms, row.status, row.greeting)
            .where(row.group_id == group_id, row.status == "pending", later)
            .order_by(row.created_ms, row.user_id)
            .limit(limit)
        )
        async with self._snapshot() as connection:
            return [GroupApplication(*found) for found in await connection.execute(query)]

    async def last_owner(self, group_id: int) -> int | None:
        """Who dissolved a group: only its owner could. None: it was never dissolved."""
        query = select(_GROUP.owner_id).where(
            _GROUP.id == group_id, _GROUP.dissolved_ms.is_not(None)
        )
        async with self._snapshot() as connection:
            owner: int | None = (await connection.execute(query)).scalar()
            return owner

    async def memberships(self, user_ids: Sequence[int]) -> list[UserMemberships]:
        """The groups of those users who have any, with the version of each group's members."""
        query = (
            select(_SEAT.user_id, _SEAT.group_id, _GROUP.members_version)
            .join_from(tables.group_member, tables.group, _SEAT.group_id == _GROUP.id)
            .where(_SEAT.user_id.in_(user_ids))
        )
        found: dict[int, list[Membership]] = {}
        async with self._snapshot() as connection:
            for user_id, group_id, version in await connection.execute(query):
                found.setdefault(user_id, []).append(Membership(group_id, version))
        return [UserMemberships(user_id, groups) for user_id, groups in found.items()]

    async def among(self, group_id: int, user_ids: Sequence[int]) -> Among:
        """See `schemas.internal.Among`."""
        version = select(_GROUP.members_version).where(_GROUP.id == group_id)
        members = select(_SEAT.user_id).where(
            _SEAT.group_id == group_id, _SEAT.user_id.in_(user_ids)
        )
        async with self._snapshot() as connection:
            as_of = (await connection.execute(version)).scalar() or 0
            return Among(as_of, list((await connection.execute(members)).scalars()))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Several reads of one point in time."""
        with reading():
            async with self._engine.connect() as connection:
                if self._engine.dialect.name == "sqlite":  # whose driver begins none for a read
                    await connection.exec_driver_sql("BEGIN")
                yield connection
