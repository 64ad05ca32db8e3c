"""Accounts and sessions in SQL."""

from collections.abc import Sequence

from sqlalchemy import Select, and_, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from functions.auth.deps import Account, NewAccount, NewSession
from functions.auth.refresh import SessionState
from schemas.auth import Session
from schemas.internal import SessionOf
from schemas.users import Me
from shared.adapters.sql import reading, writing
from shared.errors import Conflict
from shared.tables import session, user

_ACCOUNT = select(
    user.c.id,
    user.c.username,
    user.c.nickname,
    user.c.avatar,
    user.c.created_ms,
    user.c.password_hash,
).where(user.c.deleted_ms.is_(None))

_STATE = select(
    session.c.id,
    session.c.user_id,
    session.c.generation,
    session.c.refresh_hash,
    session.c.expires_ms,
    session.c.ended_ms,
    session.c.previous_hash,
    session.c.rotated_ms,
)


class SqlAccounts:
    """Implements `deps.Accounts`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def name_taken(self, username_key: str) -> bool:
        """See `deps.Accounts`."""
        with reading():
            async with self._engine.connect() as connection:
                found = await connection.execute(
                    select(exists().where(user.c.username_key == username_key))
                )
                return bool(found.scalar())

    async def create(self, account: NewAccount) -> int:
        """See `deps.Accounts`."""
        try:
            async with writing(self._engine) as connection:
                created = await connection.execute(
                    insert(user).values(
                        username=account.username,
                        username_key=account.username_key,
                        nickname=account.nickname,
                        nickname_key=account.nickname_key,
                        password_hash=account.password_hash,
                        created_ms=account.created_ms,
                    )
                )
        except IntegrityError:
            raise Conflict("this username is taken", field="username") from None
        assert created.inserted_primary_key is not None
        return int(created.inserted_primary_key[0])

    async def by_name(self, username_key: str) -> Account | None:
        """See `deps.Accounts`."""
        return await self._account(_ACCOUNT.where(user.c.username_key == username_key))

    async def by_id(self, user_id: int) -> Account | None:
        """See `deps.Accounts`."""
        return await self._account(_ACCOUNT.where(user.c.id == user_id))

    async def change_password(
        self, user_id: int, old_hash: str, new_hash: str, keep_session: str, now_ms: int
    ) -> list[str] | None:
        """See `deps.Accounts`."""
        async with writing(self._engine) as connection:
            if not await _set_password(connection, user_id, old_hash, new_hash):
                return None
            others = and_(session.c.user_id == user_id, session.c.id != keep_session)
            return await _end_sessions(connection, others, now_ms)

    async def _account(
        self, query: Select[tuple[int, str, str, str | None, int, str]]
    ) -> Account | None:
        with reading():
            async with self._engine.connect() as connection:
                row = (await connection.execute(query)).first()
        if row is None:
            return None
        me = Me(row.id, row.username, row.nickname, row.avatar, created_at=row.created_ms)
        return Account(me, row.password_hash)


class SqlSessions:
    """Implements `deps.Sessions`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open(self, session_: NewSession, password_hash: str) -> list[str] | None:
        """See `deps.Sessions`."""
        async with writing(self._engine) as connection:
            # Locks the account: a new password or a deletion meanwhile must not miss this session.
            if not await _set_password(connection, session_.user_id, password_hash, password_hash):
                return None
            ended = []
            if session_.device_id is not None:
                same_device = and_(
                    session.c.user_id == session_.user_id, session.c.device_id == session_.device_id
                )
                ended = await _end_sessions(connection, same_device, session_.created_ms)
            await connection.execute(
                insert(session).values(
                    id=session_.session_id,
                    user_id=session_.user_id,
                    device_id=session_.device_id,
                    platform=session_.platform,
                    refresh_hash=session_.refresh_hash,
                    generation=1,
                    created_ms=session_.created_ms,
                    last_used_ms=session_.created_ms,
                    expires_ms=session_.expires_ms,
                )
            )
            return ended

    async def load(self, session_id: str) -> SessionState | None:
        """See `deps.Sessions`."""
        with reading():
            async with self._engine.connect() as connection:
                row = (await connection.execute(_STATE.where(session.c.id == session_id))).first()
        return None if row is None else SessionState(*row)

    async def rotate(self, old: SessionState, new: SessionState, now_ms: int) -> bool:
        """See `deps.Sessions`."""
        async with writing(self._engine) as connection:
            changed = await connection.execute(
                update(session)
                .where(
                    session.c.id == old.session_id,
                    session.c.generation == old.generation,
                    session.c.ended_ms.is_(None),
                )
                .values(
                    generation=new.generation,
                    refresh_hash=new.refresh_hash,
                    previous_hash=new.previous_hash,
                    rotated_ms=new.rotated_ms,
                    last_used_ms=now_ms,
                    expires_ms=new.expires_ms,
                )
            )
            return changed.rowcount == 1

    async def end(self, user_id: int, session_id: str, now_ms: int) -> bool:
        """See `deps.Sessions`."""
        async with writing(self._engine) as connection:
            changed = await connection.execute(
                update(session)
                .where(session.c.id == session_id, session.c.user_id == user_id, *_live(now_ms))
                .values(ended_ms=now_ms)
            )
            return changed.rowcount == 1

    async def ended(self, sessions: Sequence[SessionOf]) -> list[SessionOf]:
        """See `deps.Sessions`."""
        query = select(session.c.user_id, session.c.id).where(
            session.c.id.in_({one.session_id for one in sessions}), session.c.ended_ms.is_not(None)
        )
        with reading():
            async with self._engine.connect() as connection:
                ended = {(row.user_id, row.id) for row in await connection.execute(query)}
        return [one for one in sessions if (one.user_id, one.session_id) in ended]

    async def live(
        self, user_id: int, now_ms: int, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Session]:
        """See `deps.Sessions`."""
        query = (
            select(session)
            .where(session.c.user_id == user_id, *_live(now_ms))
            .order_by(session.c.created_ms.desc(), session.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            created_ms, session_id = before
            same_ms = and_(session.c.created_ms == created_ms, session.c.id < session_id)
            query = query.where(or_(session.c.created_ms < created_ms, same_ms))
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        return [Session(r.id, r.created_ms, r.last_used_ms, r.platform, r.device_id) for r in rows]


def _live(now_ms: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return session.c.ended_ms.is_(None), session.c.expires_ms > now_ms


async def _set_password(
    connection: AsyncConnection, user_id: int, old_hash: str, new_hash: str
) -> bool:
    """Compare-and-set on the account's hash; locks its row. False if it is another one or gone."""
    changed = await connection.execute(
        update(user)
        .where(user.c.id == user_id, user.c.password_hash == old_hash, user.c.deleted_ms.is_(None))
        .values(password_hash=new_hash)
    )
    return changed.rowcount == 1


async def _end_sessions(
    connection: AsyncConnection, which: ColumnElement[bool], now_ms: int
) -> list[str]:
    """Ends the live sessions among these and returns their ids. The account must be locked."""
    live = and_(which, *_live(now_ms))
    ended = list((await connection.execute(select(session.c.id).where(live))).scalars())
    if ended:
        await connection.execute(
            update(session).where(session.c.id.in_(ended)).values(ended_ms=now_ms)
        )
    return ended
