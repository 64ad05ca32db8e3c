"""Applications to become friends, in SQL. The pair must be locked (`shared.friendships`) for all that is here."""

from typing import Literal, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.friends import Application
from shared.tables import friend_application as table

PENDING, ACCEPTED, REJECTED, EXPIRED = range(4)
"""`friend_application.status`; one that waited too long stays PENDING and is read as expired."""

_NAMES: tuple[Literal["pending", "accepted", "rejected", "expired"], ...] = (
    "pending",
    "accepted",
    "rejected",
    "expired",
)

LIFE_MS = 30 * 86_400_000
"""How long an application waits for an answer."""

COLUMNS = (
    table.c.id,
    table.c.from_user_id,
    table.c.to_user_id,
    table.c.greeting,
    table.c.status,
    table.c.hidden,
    table.c.created_ms,
    table.c.expires_ms,
)
"""Of a Row."""


class Row(NamedTuple):
    """One application. `hidden`: not for the eyes of the receiver, who has blocked the sender."""

    id: int
    from_user_id: int
    to_user_id: int
    greeting: str
    status: int
    hidden: int
    created_ms: int
    expires_ms: int

    def status_at(self, now_ms: int) -> int:
        """With its age in mind."""
        return EXPIRED if self.status == PENDING and self.expires_ms <= now_ms else self.status

    def shown(self, now_ms: int) -> Application:
        """As both see it."""
        status = _NAMES[self.status_at(now_ms)]
        return Application(
            self.id,
            self.from_user_id,
            self.to_user_id,
            self.greeting,
            status,
            self.created_ms,
            self.expires_ms,
        )


async def of_pair(connection: AsyncConnection, a: int, b: int) -> tuple[Row | None, Row | None]:
    """The last one of `a` to `b`, and of `b` to `a`."""
    query = select(*COLUMNS).where(
        ((table.c.from_user_id == a) & (table.c.to_user_id == b))
        | ((table.c.from_user_id == b) & (table.c.to_user_id == a))
    )
    rows = {row.from_user_id: Row(*row) for row in await connection.execute(query)}
    return rows.get(a), rows.get(b)


async def put(connection: AsyncConnection, old: Row | None, new: Row) -> Row:
    """A new application in the place of the last one; it gets a number of its own."""
    if old is not None:
        await connection.execute(delete(table).where(table.c.id == old.id))
    values = new._asdict()
    del values["id"]
    done = await connection.execute(insert(table).values(values))
    assert done.inserted_primary_key is not None
    return new._replace(id=int(done.inserted_primary_key[0]))


async def change(connection: AsyncConnection, old: Row, **changes: int | str) -> Row:
    """The same application with other values."""
    await connection.execute(update(table).where(table.c.id == old.id).values(changes))
    return Row(**(old._asdict() | changes))


async def end(connection: AsyncConnection, *, blocker: int, blocked: int) -> None:
    """After a block: his own ends, as if it had expired; the other's is out of his sight, and seems to wait."""
    own, others = await of_pair(connection, blocker, blocked)
    if own is not None and own.status == PENDING:
        await change(connection, own, status=EXPIRED)
    if others is not None and others.status == PENDING:
        await change(connection, others, hidden=1)
