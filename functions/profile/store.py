"""Profiles in SQL; their copies in Redis are removed when they are no longer true."""

from collections.abc import Sequence
from typing import Any

import msgspec
import redis.asyncio
from msgspec import UNSET
from sqlalchemy import Row, Select, and_, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from functions.profile.deps import Changes, Seen
from schemas.users import Me, User
from shared.adapters.sql import reading, writing
from shared.errors import Conflict
from shared.gate import Copies, user_key
from shared.tables import BLOCKED, departure, friendship, group, session, user

DELETED_NAME = "deleted"

_PROFILE = select(
    user.c.id, user.c.username, user.c.nickname, user.c.avatar, user.c.created_ms
).where(user.c.deleted_ms.is_(None))


class SqlProfiles:
    """Implements `deps.Profiles`."""

    def __init__(self, engine: AsyncEngine, client: redis.asyncio.Redis) -> None:
        self._engine = engine
        self._copies = Copies(client)

    async def me(self, user_id: int) -> Me | None:
        """See `deps.Profiles`."""
        rows = await self._read(_PROFILE.where(user.c.id == user_id))
        return Me(*rows[0][:4], created_at=rows[0].created_ms) if rows else None

    async def get(self, user_id: int, asker: int) -> Seen | None:
        """See `deps.Profiles`."""
        rows = await self._read(_as_seen_by(asker).where(user.c.id == user_id))
        return _seen(rows[0]) if rows else None

    async def search(self, start: str, after: int, limit: int, asker: int) -> Sequence[User]:
        """See `deps.Profiles`."""
        either = or_(_starts(user.c.username_key, start), _starts(user.c.nickname_key, start))
        query = _as_seen_by(asker).where(either, user.c.id > after)
        rows = await self._read(query.order_by(user.c.id).limit(limit))
        return [_seen(row).user for row in rows]

    async def update(self, user_id: int, changes: Changes) -> None:
        """See `deps.Profiles`."""
        values = {k: v for k, v in msgspec.structs.asdict(changes).items() if v is not UNSET}
        async with writing(self._engine) as connection:
            await connection.execute(
                update(user).where(user.c.id == user_id, user.c.deleted_ms.is_(None)).values(values)
            )

    async def password_hash(self, user_id: int) -> str | None:
        """See `deps.Profiles`."""
        query = select(user.c.password_hash).where(
            user.c.id == user_id, user.c.deleted_ms.is_(None)
        )
        rows = await self._read(query)
        return rows[0].password_hash if rows else None

    async def delete(self, user_id: int, password_hash: str, now_ms: int) -> list[str] | None:
        """See `deps.Profiles`."""
        async with writing(self._engine) as connection:
            # Locks the account: no session can be opened any more.
            gone = await connection.execute(
                update(user)
                .where(
                    user.c.id == user_id,
                    user.c.password_hash == password_hash,
                    user.c.deleted_ms.is_(None),
                )
                .values(
                    username="",
                    username_key=None,
                    nickname=DELETED_NAME,
                    nickname_key=DELETED_NAME,
                    avatar=None,
                    password_hash="",
                    deleted_ms=now_ms,
                )
            )
            if gone.rowcount != 1:
                return None
            owned = select(group.c.id).where(
                group.c.owner_id == user_id, group.c.dissolved_ms.is_(None)
            )
            if (mine := (await connection.execute(owned.limit(1))).scalar()) is not None:
                raise Conflict(f"group {mine} is yours: hand it over first, or dissolve it")
            # His seats in the groups of others are given up by function `groups`.
            await connection.execute(insert(departure).values(user_id=user_id))
            live = and_(
                session.c.user_id == user_id,
                session.c.ended_ms.is_(None),
                session.c.expires_ms > now_ms,
            )
            ended = list((await connection.execute(select(session.c.id).where(live))).scalars())
            if ended:
                await connection.execute(
                    update(session).where(session.c.id.in_(ended)).values(ended_ms=now_ms)
                )
        await self._copies.forget(user_key(user_id))
        return ended

    async def _read(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        with reading():
            async with self._engine.connect() as connection:
                return (await connection.execute(query)).all()


def _as_seen_by(asker: int) -> Select[*tuple[Any, ...]]:
    """Profiles, with what the two have decided about each other."""
    own, theirs = friendship.alias("own"), friendship.alias("theirs")
    return (
        _PROFILE.outerjoin_from(
            user, own, and_(own.c.user_id == asker, own.c.friend_id == user.c.id)
        )
        .outerjoin(theirs, and_(theirs.c.user_id == user.c.id, theirs.c.friend_id == asker))
        .add_columns(
            own.c.status,
            own.c.remark,
            own.c.friends_ms,
            theirs.c.status.label("their_status"),
        )
    )


def _seen(row: Row[*tuple[Any, ...]]) -> Seen:
    found = User(
        row.id,
        row.username,
        row.nickname,
        row.avatar,
        friend=row.friends_ms is not None,
        blocked=row.status == BLOCKED,
        remark=row.remark or "",
    )
    return Seen(found, found.friend and not found.blocked and row.their_status != BLOCKED)


def _starts(column: ColumnElement[str], start: str) -> ColumnElement[bool]:
    """Whether a folded name starts so. A range uses the index and, unlike LIKE, has no wildcards."""
    return and_(column >= start, column < start + "\U0010ffff")
