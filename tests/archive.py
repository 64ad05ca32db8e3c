"""Writes rows of conversations as the timeline does, for tests of those who read them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.history.tail import Cached, Tail
from functions.timeline.sends import row_of
from schemas.messages import Message
from shared import tables
from shared.ids import members_of_private, month_of, snowflake, snowflake_ms
from shared.months import ensure_months

FIRST_MS = 1_767_225_600_000  # 2026-01-01


class Archive:
    """One engine. Messages are a second apart, or as far as `skip` says."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.ms = FIRST_MS
        self.heads: dict[str, dict[str, int]] = {}
        self.ids: dict[tuple[str, int], int] = {}
        self._months: set[tuple[str, int]] = set()

    def skip(self, ms: int) -> None:
        """Lets time pass."""
        self.ms += ms

    async def member(self, user_id: int, conversation_id: str, **columns: Any) -> None:
        """A row of `user_conversation`."""
        table = tables.user_conversation
        async with self.engine.begin() as connection:
            await connection.execute(
                insert(table).values(user_id=user_id, conversation_id=conversation_id, **columns)
            )

    async def set(self, user_id: int, conversation_id: str, **columns: Any) -> None:
        """Changes one."""
        c = tables.user_conversation.c
        async with self.engine.begin() as connection:
            await connection.execute(
                update(tables.user_conversation)
                .where(c.user_id == user_id, c.conversation_id == conversation_id)
                .values(**columns)
            )

    async def send(
        self, conversation_id: str, sender_id: int, text: str = "x", **fields: Any
    ) -> Message:
        """A stored message; with the first one of a private conversation, its rows."""
        message = self.message(conversation_id, sender_id, text, **fields)
        await self.store(message)
        return message

    def message(
        self, conversation_id: str, sender_id: int, text: str = "x", **fields: Any
    ) -> Message:
        """The next message, numbered and not stored."""
        head = self.heads.setdefault(conversation_id, {"seq": 0, "rev": 0, "stored": 0})
        head["seq"] += 1
        self.ms += 1000
        number = snowflake(self.ms, 0, 0)
        self.ids[conversation_id, head["seq"]] = number
        return Message(
            str(number), conversation_id, sender_id, fields.pop("msg_type", 1), text, self.ms,
            head["seq"], f"c{head['seq']}", 0, **fields,
        )  # fmt: skip

    async def store(self, message: Message) -> None:
        """What the timeline commits for a message."""
        conversation_id, number = message.conversation_id, int(message.msg_id)
        month = month_of(snowflake_ms(number))
        await ensure_months(self.engine, [month])
        head = self.heads[conversation_id]
        head["stored"] = message.seq
        async with self.engine.begin() as connection:
            await connection.execute(insert(tables.message_table(month)).values(_row(message)))
            for user_id in {0 if m == "all" else m for m in message.mentions}:
                await connection.execute(
                    insert(tables.message_mention).values(
                        user_id=user_id, conversation_id=conversation_id, seq=message.seq
                    )
                )
            if (conversation_id, month) not in self._months:
                self._months.add((conversation_id, month))
                await connection.execute(
                    insert(tables.conversation_month).values(
                        conversation_id=conversation_id, month=month, first_seq=message.seq
                    )
                )
            c = tables.conversation.c
            values = {"max_seq": message.seq, "changed_ms": message.timestamp}
            if message.seq == 1:
                await connection.execute(
                    insert(tables.conversation).values(
                        conversation_id=conversation_id, max_rev=head["rev"], **values
                    )
                )
            else:
                await connection.execute(
                    update(tables.conversation)
                    .where(c.conversation_id == conversation_id)
                    .values(**values)
                )
        if message.seq == 1:
            for user_id in members_of_private(conversation_id) or ():
                await self.member(user_id, conversation_id)

    async def store_all(self, messages: Sequence[Message]) -> None:
        """The same for the first messages of a conversation, all of one month and without mentions, at once."""
        await self.store(messages[0])
        last = messages[-1]
        self.heads[last.conversation_id]["stored"] = last.seq
        rows = [_row(message) for message in messages[1:]]
        c = tables.conversation.c
        async with self.engine.begin() as connection:
            await connection.execute(insert(tables.message_table(month_of(last.timestamp))), rows)
            await connection.execute(
                update(tables.conversation)
                .where(c.conversation_id == last.conversation_id)
                .values(max_seq=last.seq, changed_ms=last.timestamp)
            )

    async def change(self, conversation_id: str, seq: int, **columns: Any) -> int:
        """Changes a message; returns the `rev`."""
        head = self.heads[conversation_id]
        head["rev"] += 1
        rev, number = head["rev"], self.ids[conversation_id, seq]
        table = tables.message_table(month_of(snowflake_ms(number)))
        async with self.engine.begin() as connection:
            await connection.execute(
                update(table).where(table.c.id == number).values(rev=rev, **columns)
            )
            await connection.execute(
                insert(tables.message_change).values(
                    conversation_id=conversation_id, rev=rev, msg_id=number
                )
            )
            c = tables.conversation.c
            await connection.execute(
                update(tables.conversation)
                .where(c.conversation_id == conversation_id)
                .values(max_rev=rev, message_rev=rev)
            )
        return rev

    async def recall(self, conversation_id: str, seq: int) -> int:
        """A tombstone; returns the `rev`."""
        m = tables.message_mention.c
        async with self.engine.begin() as connection:
            await connection.execute(
                delete(tables.message_mention).where(
                    m.conversation_id == conversation_id, m.seq == seq
                )
            )
        return await self.change(conversation_id, seq, status=1, content="", mentions=None)

    async def read(self, conversation_id: str, user_id: int, seq: int) -> None:
        """A read position, which counts as a change in a private conversation."""
        head = self.heads[conversation_id]
        head["rev"] += 1
        c = tables.conversation.c
        async with self.engine.begin() as connection:
            await connection.execute(
                update(tables.conversation)
                .where(c.conversation_id == conversation_id)
                .values(max_rev=head["rev"])
            )
        await self.set(user_id, conversation_id, read_seq=seq, read_rev=head["rev"])


def _row(message: Message) -> dict[str, Any]:
    """Columns of `message_<month>`."""
    number = int(message.msg_id)
    columns = tables.message_table(month_of(snowflake_ms(number))).c.keys()
    return dict(zip(columns, row_of(message, number), strict=True))


class Acked:
    """Messages that are acked and not stored yet."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fresh: frozenset[str] = frozenset()
        self.away = False

    async def read(
        self,
        user_id: int,  # noqa: ARG002 - here everybody has the same
        wanted: Mapping[str, int],
    ) -> tuple[frozenset[str] | None, dict[str, Tail]]:
        tails: dict[str, Tail] = {
            c: [
                (msgspec.convert(m, Cached, from_attributes=True), msgspec.json.encode(m))
                for m in self.messages
                if m.conversation_id == c and m.seq > after
            ]
            for c, after in wanted.items()
        }
        return (None, {}) if self.away else (self.fresh, tails)
