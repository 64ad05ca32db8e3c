"""Friends in SQL."""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.friends.handlers import Listed, Updated
from schemas.friends import Friend
from shared import applications
from shared.adapters.sql import reading
from shared.errors import NotFound
from shared.friendships import (
    FRIENDS,
    friend_of,
    in_pair,
    next_version,
    read_friend,
    read_pair,
    set_friends,
    set_side,
)
from shared.tables import BLOCKED, friendship, user


class SqlFriends:
    """Implements `handlers.FriendStore`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def changed(
        self, user_id: int, after: int, limit: int, *, gone: bool
    ) -> tuple[Sequence[Listed], int]:
        """See `handlers.FriendStore`."""
        row = friendship.c
        query = FRIENDS.where(row.user_id == user_id, row.version > after)
        if not gone:
            query = query.where(row.friends_ms.is_not(None))
        query = query.order_by(row.version).limit(limit)
        count = select(user.c.friends_version).where(user.c.id == user_id)
        with reading():
            async with self._engine.connect() as connection:
                # First the version: of what is committed in between a client hears twice, never not at all.
                version = (await connection.execute(count)).scalar() or 0
                rows = (await connection.execute(query)).all()
        return [Listed(friend_of(found), found.version) for found in rows], version

    async def blocked(self, user_id: int, after: int, limit: int) -> Sequence[Friend]:
        """See `handlers.FriendStore`."""
        row = friendship.c
        query = (
            FRIENDS.where(row.user_id == user_id, row.friend_id > after, row.status == BLOCKED)
            .order_by(row.friend_id)
            .limit(limit)
        )
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        return [friend_of(found) for found in rows]

    async def remark(self, user_id: int, peer: int, remark: str) -> Updated:
        """See `handlers.FriendStore`."""

        async def work(connection: AsyncConnection) -> Updated:
            pair = await read_pair(connection, user_id, peer)
            if not pair.friends:
                raise NotFound(f"user {peer} is no friend", field="id")
            friend = await read_friend(connection, user_id, peer)
            if friend.remark == remark:
                return Updated(friend, None)
            version = await next_version(connection, user_id)
            await connection.execute(
                update(friendship)
                .where(friendship.c.id == pair.own.row_id)
                .values(remark=remark or None, version=version)
            )
            return Updated(await read_friend(connection, user_id, peer), version)

        return await in_pair(self._engine, user_id, peer, work, field="id", gone=True)

    async def delete(self, user_id: int, peer: int, now_ms: int) -> tuple[int, int] | None:
        """See `handlers.FriendStore`."""

        async def work(connection: AsyncConnection) -> tuple[int, int] | None:
            pair = await read_pair(connection, user_id, peer)
            if pair.own.row_id is None:
                raise NotFound(f"user {peer} is no friend", field="id")
            if not pair.friends:
                return None
            return await set_friends(connection, user_id, peer, pair, None, now_ms)

        return await in_pair(self._engine, user_id, peer, work, field="id", gone=True)

    async def block(self, user_id: int, peer: int, now_ms: int) -> Updated:
        """See `handlers.FriendStore`."""

        async def work(connection: AsyncConnection) -> Updated:
            own, _ = await read_pair(connection, user_id, peer)
            version = None
            if not own.blocked:
                new = own._replace(blocked=True)
                version = await set_side(connection, user_id, peer, own, new, now_ms)
                await applications.end(connection, blocker=user_id, blocked=peer)
            return Updated(await read_friend(connection, user_id, peer), version)

        return await in_pair(self._engine, user_id, peer, work, field="id", gone=True)

    async def unblock(self, user_id: int, peer: int, now_ms: int) -> Updated | None:
        """See `handlers.FriendStore`."""

        async def work(connection: AsyncConnection) -> Updated | None:
            own, _ = await read_pair(connection, user_id, peer)
            if not own.blocked:
                return None
            new = own._replace(blocked=False)
            version = await set_side(connection, user_id, peer, own, new, now_ms)
            return Updated(await read_friend(connection, user_id, peer), version)

        return await in_pair(self._engine, user_id, peer, work, field="id", gone=True)
