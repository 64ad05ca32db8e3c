"""Finds messages by `msg_id`, whose Snowflake says in which monthly table they are; one query for all that wait."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.messages import Message, Origin, Reaction
from shared import tables
from shared.adapters.sql import reading
from shared.coalesce import Coalescer
from shared.ids import MAX_ID, members_of_private, month_of, now_ms, snowflake_ms
from shared.patience import until_stored

RECENT_MS = 60_000
"""A message that may be so new, clocks that differ included, may be acked and not stored yet."""


class MessageRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Columns of `shared.tables.message_table`, but for those that `id` says already."""

    id: int
    conversation_id: str
    sender_id: int
    receiver_id: int | None
    group_id: int | None
    msg_type: int
    content: str
    status: int
    seq: int
    rev: int
    client_msg_id: str
    reply_to: str | None
    mentions: str | None
    file_id: str | None
    extra: str | None
    edited_ms: int | None
    forward: str | None
    reactions: str | None
    pinned: int

    @property
    def msg_id(self) -> str:
        """As everybody calls it."""
        return str(self.id)


decode_row = msgspec.json.Decoder(MessageRow).decode
"""A `MessageRow` out of what `packed_rows` selects."""


def packed_rows(month: int) -> "Select[str]":
    """Messages of a month, each as one JSON array in the order of `MessageRow`.

    The MySQL driver is Python, and takes longer for a column than JSON for a whole row.
    """
    c = tables.message_table(month).c
    return select(func.json_array(*(c[name] for name in MessageRow.__struct_fields__)))


class Months:
    """Which monthly tables there are. Ids come from clients: of a month that never was there is no table."""

    def __init__(self) -> None:
        self._there: set[int] = set()

    async def of(self, connection: AsyncConnection, ids: Iterable[int]) -> list[int]:
        """Those of the ids whose table is there."""
        months = {i: month_of(snowflake_ms(i)) for i in ids}
        for month in set(months.values()) - self._there:
            if await connection.run_sync(_has, month):
                self._there.add(month)
        return [i for i, month in months.items() if month in self._there]


class Messages:
    """Messages in SQL by their id."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._months = Months()
        self._rows: Coalescer[int, MessageRow | None] = Coalescer(self._read)

    async def find(self, msg_id: str) -> MessageRow | None:
        """The row of a message that was ever acked, recalled or not; None if there is none. Raises: Unavailable."""
        number = int(msg_id)
        if number > MAX_ID:
            return None
        if abs(now_ms() - snowflake_ms(number)) < RECENT_MS:
            return await until_stored(lambda: self._rows.ask(number))
        return await self._rows.ask(number)

    async def sees(self, user_id: int, row: MessageRow) -> bool:
        """Whether a message is there for a user: he is, or was then, a member, and has not cleared it.

        Raises: Unavailable.
        """
        pair = members_of_private(row.conversation_id)
        if pair is not None and user_id not in pair:
            return False
        c = tables.user_conversation.c
        query = select(c.from_seq, c.until_seq, c.cleared_seq).where(
            c.user_id == user_id, c.conversation_id == row.conversation_id
        )
        with reading():
            async with self._engine.connect() as connection:
                mine: Any = (await connection.execute(query)).first()
                if (
                    mine is not None
                    and mine.until_seq is not None
                    and row.edited_ms is not None
                    and await time_of(connection, row.conversation_id, mine.until_seq)
                    <= row.edited_ms
                ):
                    return False  # what it says now is not for one who had left before
        if mine is None:
            return False
        upto = row.seq if mine.until_seq is None else mine.until_seq
        return bool(max(mine.from_seq, mine.cleared_seq) < row.seq <= upto)

    async def _read(self, ids: list[int]) -> Sequence[MessageRow | None]:
        with reading():
            async with self._engine.connect() as connection:
                known = await self._months.of(connection, ids)
                found = await by_ids(connection, known)
        return [found.get(i) for i in ids]


async def by_ids(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, MessageRow]:
    """Rows by Snowflake, from months whose tables are there."""
    by_month: dict[int, list[int]] = {}
    for msg_id in ids:
        by_month.setdefault(month_of(snowflake_ms(msg_id)), []).append(msg_id)
    found: dict[int, MessageRow] = {}
    for month, wanted in by_month.items():
        id_ = tables.message_table(month).c.id
        rows = await connection.scalars(packed_rows(month).where(id_.in_(wanted)))
        found |= {row.id: row for row in map(decode_row, rows)}
    return found


async def time_of(connection: AsyncConnection, conversation_id: str, seq: int) -> int:
    """When a message that is stored was sent, Unix ms."""
    m = tables.conversation_month.c
    months = (
        select(m.month)
        .where(m.conversation_id == conversation_id, m.first_seq <= seq)
        .order_by(m.month.desc())
        .limit(1)
    )
    c = tables.message_table((await connection.execute(months)).scalar_one()).c
    query = select(c.id).where(c.conversation_id == conversation_id, c.seq == seq)
    return snowflake_ms((await connection.execute(query)).scalar_one())


def message_of(row: MessageRow) -> Message:
    """A row as everybody sees the message."""
    return Message(
        msg_id=row.msg_id,
        conversation_id=row.conversation_id,
        sender_id=row.sender_id,
        msg_type=row.msg_type,
        content=row.content,
        timestamp=snowflake_ms(row.id),
        seq=row.seq,
        client_msg_id=row.client_msg_id,
        status=row.status,
        receiver_id=row.receiver_id,
        group_id=row.group_id,
        rev=row.rev,
        reply_to=row.reply_to,
        mentions=msgspec.json.decode(row.mentions) if row.mentions else [],
        file_id=row.file_id,
        extra=msgspec.Raw(row.extra.encode()) if row.extra is not None else msgspec.UNSET,
        edited_at=row.edited_ms,
        forward=msgspec.json.decode(row.forward, type=Origin) if row.forward else None,
        reactions=msgspec.json.decode(row.reactions, type=list[Reaction]) if row.reactions else [],
        pinned=bool(row.pinned),
    )


def json_of(row: MessageRow) -> bytes:
    """A row as the JSON of `Message`, byte for byte as the timeline has pushed it."""
    return msgspec.json.encode(message_of(row))


def _has(connection: Connection, month: int) -> bool:
    return inspect(connection).has_table(tables.message_table(month).name)
