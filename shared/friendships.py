"""What two users are to each other, in SQL: how every function changes it.

A change locks the rows of both users in `user`, the lower id first. So two changes of one pair follow each other (two
who accept, one who accepts and one who blocks), and no two changes wait for each other.
"""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.friends import Friend
from shared.adapters.sql import writing
from shared.errors import NotFound, Unauthenticated, Unavailable
from shared.ids import created_at
from shared.tables import BLOCKED, GONE, NORMAL, friendship, user

T = TypeVar("T")

DEADLOCK = 1213
TRIES = 5


class Side(NamedTuple):
    """What one user has decided about the other. `row_id` None: nothing yet."""

    row_id: int | None = None
    blocked: bool = False
    friends_ms: int | None = None


class Pair(NamedTuple):
    """Both sides, as the acting user sees them."""

    own: Side
    peers: Side

    @property
    def friends(self) -> bool:
        """Both rows always agree on it."""
        return self.own.friends_ms is not None


async def in_pair(
    engine: AsyncEngine,
    user_id: int,
    peer: int,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    field: str,
    gone: bool = False,
) -> T:
    """Runs `work` in a transaction in which nobody else changes anything between these two.

    field: names the peer in errors. gone: the peer's account may be deleted.
    Raises: Unauthenticated if the account of `user_id` is deleted; NotFound for the peer; Unavailable; UnknownOutcome.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            async with writing(engine) as connection:
                await _lock(connection, user_id, peer, field=field, gone=gone)
                return await work(connection)
        except Unavailable as error:
            # InnoDB may see a circle in the gaps between rows of different pairs, and undoes one of them.
            if not (tries_left and _is_deadlock(error.__cause__)):
                raise
    raise AssertionError("the last try returns or raises")


async def read_pair(connection: AsyncConnection, user_id: int, peer: int) -> Pair:
    """Both sides. The pair must be locked if something is to follow from it."""
    row = friendship.c
    query = select(row.id, row.user_id, row.status, row.friends_ms).where(
        ((row.user_id == user_id) & (row.friend_id == peer))
        | ((row.user_id == peer) & (row.friend_id == user_id))
    )
    sides = {
        owner: Side(row_id, status == BLOCKED, friends_ms)
        for row_id, owner, status, friends_ms in await connection.execute(query)
    }
    return Pair(sides.get(user_id, Side()), sides.get(peer, Side()))


async def set_side(
    connection: AsyncConnection, user_id: int, peer: int, old: Side, new: Side, now_ms: int
) -> int:
    """Stores what `user_id` is to `peer` now; a friendship that ended takes its remark along.

    Returns the new version of his list.
    """
    version = await next_version(connection, user_id)
    status = BLOCKED if new.blocked else GONE if new.friends_ms is None else NORMAL
    values: dict[str, object] = {
        "status": status,
        "friends_ms": new.friends_ms,
        "version": version,
    }
    if new.friends_ms is None:
        values["remark"] = None
    if old.row_id is None:
        values |= {"user_id": user_id, "friend_id": peer, "created_at": created_at(now_ms)}
        await connection.execute(insert(friendship).values(values))
    else:
        await connection.execute(
            update(friendship).where(friendship.c.id == old.row_id).values(values)
        )
    return version


async def set_friends(
    connection: AsyncConnection,
    user_id: int,
    peer: int,
    pair: Pair,
    friends_ms: int | None,
    now_ms: int,
) -> tuple[int, int]:
    """Begins a friendship, or with None ends it. Returns the new versions of both lists."""
    own, peers = pair
    return (
        await set_side(connection, user_id, peer, own, own._replace(friends_ms=friends_ms), now_ms),
        await set_side(
            connection, peer, user_id, peers, peers._replace(friends_ms=friends_ms), now_ms
        ),
    )


async def next_version(connection: AsyncConnection, user_id: int) -> int:
    """Counts a change of a user's list; his row must be locked."""
    count = user.c.friends_version
    await connection.execute(
        update(user).where(user.c.id == user_id).values(friends_version=count + 1)
    )
    found = await connection.execute(select(count).where(user.c.id == user_id))
    return int(found.scalar_one())


FRIENDS = select(
    user.c.id,
    user.c.username,
    user.c.nickname,
    user.c.avatar,
    friendship.c.remark,
    friendship.c.status,
    friendship.c.friends_ms,
    friendship.c.version,
).join_from(friendship, user, user.c.id == friendship.c.friend_id)
"""Rows for `friend_of`."""


def friend_of(row: Row[*tuple[Any, ...]]) -> Friend:
    """A row of FRIENDS as its owner sees it."""
    return Friend(
        row.id,
        row.username,
        row.nickname,
        row.avatar,
        remark=row.remark or "",
        blocked=row.status == BLOCKED,
        since=row.friends_ms,
    )


async def read_friend(connection: AsyncConnection, user_id: int, peer: int) -> Friend:
    """What `user_id` sees of somebody his list has a row of."""
    query = FRIENDS.where(friendship.c.user_id == user_id, friendship.c.friend_id == peer)
    return friend_of((await connection.execute(query)).one())


async def _lock(
    connection: AsyncConnection, user_id: int, peer: int, *, field: str, gone: bool
) -> None:
    for one in sorted((user_id, peer)):
        # Writes nothing new: it locks the row, and on SQLite the database.
        await connection.execute(
            update(user).where(user.c.id == one).values(friends_version=user.c.friends_version)
        )
    query = select(user.c.id, user.c.deleted_ms).where(user.c.id.in_((user_id, peer)))
    deleted = {row.id: row.deleted_ms for row in await connection.execute(query)}
    if deleted.get(user_id, 0) is not None:
        raise Unauthenticated("this account is deleted")
    if peer not in deleted or (deleted[peer] is not None and not gone):
        raise NotFound(f"no user {peer}", field=field)


def _is_deadlock(error: BaseException | None) -> bool:
    return (
        isinstance(error, DBAPIError)
        and error.orig is not None
        and error.orig.args[:1] == (DEADLOCK,)
    )
