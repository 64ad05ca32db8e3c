"""Rows of `group_member`: reading one, adding some, and who may be added."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from functions.groups.rows import SEAT, Seat
from schemas.groups import MOST_GROUPS
from schemas.rights import Role
from shared import tables
from shared.errors import Blocked, Conflict, NotFound, Unauthenticated
from shared.ids import created_at

_SEATS = tables.group_member


async def read_seat(connection: AsyncConnection, group_id: int, user_id: int) -> Seat | None:
    """A member's seat, None if he is no member."""
    query = SEAT.where(_SEATS.c.group_id == group_id, _SEATS.c.user_id == user_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Seat.of(row)


async def add_seats(
    connection: AsyncConnection, group_id: int, roles: Mapping[int, Role], now_ms: int
) -> None:
    """Adds rows of new members."""
    rows = [
        {
            "group_id": group_id,
            "user_id": user_id,
            "role": int(role),
            "joined_at": created_at(now_ms),
            "joined_ms": now_ms,
        }
        for user_id, role in roles.items()
    ]
    await connection.execute(insert(_SEATS), rows)


async def check_users(
    connection: AsyncConnection, user_ids: Sequence[int], by: int, *, invited: bool = False
) -> None:
    """Whether they may be taken in. Raises: NotFound, Unauthenticated, Blocked, Conflict."""
    user, friendship = tables.user.c, tables.friendship.c
    living = select(user.id).where(user.id.in_(user_ids), user.deleted_ms.is_(None))
    missing = set(user_ids) - set((await connection.execute(living)).scalars())
    if by in missing:
        raise Unauthenticated("this account is deleted")
    if missing:
        raise NotFound(f"no user {min(missing)}", field="user_ids")
    if invited:
        blocks = select(friendship.user_id).where(
            friendship.user_id.in_(user_ids),
            friendship.friend_id == by,
            friendship.status == tables.BLOCKED,
        )
        if (user_id := (await connection.execute(blocks)).scalar()) is not None:
            raise Blocked(f"user {user_id} has blocked you", field="user_ids")
    full = (
        select(_SEATS.c.user_id)
        .where(_SEATS.c.user_id.in_(user_ids))
        .group_by(_SEATS.c.user_id)
        .having(func.count() >= MOST_GROUPS)
    )
    if (user_id := (await connection.execute(full)).scalar()) is not None:
        raise Conflict(f"user {user_id} is in {MOST_GROUPS} groups already", field="user_ids")
