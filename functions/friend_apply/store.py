"""Applications in SQL. Every decision is taken with both users' rows locked."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from functions.friend_apply.handlers import Applied, Befriended
from schemas.friends import Application, Friend
from shared import applications
from shared.adapters.sql import reading
from shared.applications import ACCEPTED, COLUMNS, LIFE_MS, PENDING, REJECTED, Row
from shared.errors import Blocked, Conflict, NotFound
from shared.friendships import Pair, in_pair, read_friend, read_pair, set_friends
from shared.tables import friend_application as table


class SqlApplications:
    """Implements `handlers.ApplicationStore`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def apply(self, user_id: int, peer: int, greeting: str, now_ms: int) -> Applied:
        """See `handlers.ApplicationStore`."""

        async def work(connection: AsyncConnection) -> Applied:
            pair = await read_pair(connection, user_id, peer)
            own, others = await applications.of_pair(connection, user_id, peer)
            if pair.friends:
                if own is not None and own.status == ACCEPTED:
                    return Applied(own.shown(now_ms))  # a repeat
                raise Conflict("you are friends already", field="user_id")
            if pair.own.blocked:
                raise Blocked("you have blocked this user; unblock him first", field="user_id")
            new = Row(
                *(0, user_id, peer, greeting, PENDING, int(pair.peers.blocked), now_ms),
                expires_ms=now_ms + LIFE_MS,
            )
            if others is not None and others.status_at(now_ms) == PENDING:
                await applications.change(connection, others, status=ACCEPTED, hidden=0)
                new = new._replace(status=ACCEPTED)
                row = await applications.put(connection, own, new)
                sides = await _befriend(connection, others, pair, now_ms)
                return Applied(row.shown(now_ms), befriended=sides)
            if own is None or own.status_at(now_ms) != PENDING:
                row = await applications.put(connection, own, new)
            elif (own.greeting, own.hidden) == (greeting, new.hidden):
                return Applied(own.shown(now_ms))
            else:
                row = await applications.change(
                    connection, own, greeting=greeting, hidden=new.hidden
                )
            told = (user_id,) if row.hidden else (user_id, peer)
            return Applied(row.shown(now_ms), told)

        return await in_pair(self._engine, user_id, peer, work, field="user_id")

    async def page(
        self, user_id: int, direction: str | None, before: int | None, limit: int, now_ms: int
    ) -> Sequence[Application]:
        """See `handlers.ApplicationStore`."""
        outgoing = table.c.from_user_id == user_id
        incoming = (table.c.to_user_id == user_id) & (table.c.hidden == 0)
        which = {"in": incoming, "out": outgoing, None: incoming | outgoing}[direction]
        query = select(*COLUMNS).where(which).order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.id < before)
        with reading():
            async with self._engine.connect() as connection:
                rows = (await connection.execute(query)).all()
        return [Row(*row).shown(now_ms) for row in rows]

    async def accept(
        self, user_id: int, application_id: int, now_ms: int
    ) -> tuple[Friend, tuple[Befriended, ...]]:
        """See `handlers.ApplicationStore`."""
        applicant = await self._applicant(user_id, application_id)

        async def work(connection: AsyncConnection) -> tuple[Friend, tuple[Befriended, ...]]:
            row = await _to_be_answered(connection, user_id, applicant, application_id)
            pair = await read_pair(connection, user_id, applicant)
            sides: tuple[Befriended, ...] = ()
            if row.status_at(now_ms) == PENDING:
                await applications.change(connection, row, status=ACCEPTED)
                if not pair.friends:
                    sides = await _befriend(connection, row, pair, now_ms)
            elif not (row.status == ACCEPTED and pair.friends):
                raise Conflict(f"this application {_state(row, pair, now_ms)}", field="id")
            return await read_friend(connection, user_id, applicant), sides

        return await in_pair(self._engine, user_id, applicant, work, field="id")

    async def reject(
        self, user_id: int, application_id: int, now_ms: int
    ) -> tuple[Application, bool]:
        """See `handlers.ApplicationStore`."""
        applicant = await self._applicant(user_id, application_id)

        async def work(connection: AsyncConnection) -> tuple[Application, bool]:
            row = await _to_be_answered(connection, user_id, applicant, application_id)
            if row.status == REJECTED:
                return row.shown(now_ms), False
            if row.status_at(now_ms) != PENDING:
                pair = await read_pair(connection, user_id, applicant)
                raise Conflict(f"this application {_state(row, pair, now_ms)}", field="id")
            row = await applications.change(connection, row, status=REJECTED)
            return row.shown(now_ms), True

        return await in_pair(self._engine, user_id, applicant, work, field="id", gone=True)

    async def _applicant(self, user_id: int, application_id: int) -> int:
        """Whose application it is: that never changes, so it may be read before the lock."""
        query = select(table.c.from_user_id).where(
            table.c.id == application_id, table.c.to_user_id == user_id
        )
        with reading():
            async with self._engine.connect() as connection:
                applicant = (await connection.execute(query)).scalar()
        if applicant is None:
            raise _no_such(application_id)
        return int(applicant)


async def _to_be_answered(
    connection: AsyncConnection, user_id: int, applicant: int, application_id: int
) -> Row:
    """The application, if it is still there and `user_id` may see it."""
    row, _ = await applications.of_pair(connection, applicant, user_id)
    if row is None or row.id != application_id or row.hidden:
        raise _no_such(application_id)
    return row


async def _befriend(
    connection: AsyncConnection, application: Row, pair: Pair, now_ms: int
) -> tuple[Befriended, ...]:
    """The receiver of `application` has agreed; `pair` is as he sees it."""
    user_id, peer = application.to_user_id, application.from_user_id
    own, peers = await set_friends(connection, user_id, peer, pair, now_ms, now_ms)
    return (
        Befriended(user_id, application.id, await read_friend(connection, user_id, peer), own),
        Befriended(peer, application.id, await read_friend(connection, peer, user_id), peers),
    )


def _state(row: Row, pair: Pair, now_ms: int) -> str:
    """For a sentence that begins with `this application`."""
    status = row.shown(now_ms).status
    if status == "expired":
        return "has expired"
    ended = status == "accepted" and not pair.friends
    return f"was {status}" + (", and the friendship has ended" if ended else "")


def _no_such(application_id: int) -> NotFound:
    return NotFound(f"no application {application_id} to you", field="id")
