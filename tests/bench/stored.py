"""What the SQL database holds in the end, against what clients were told."""

import asyncio
from time import perf_counter

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import tables
from tests.bench.talk import Result

WAIT_S = 60.0


async def count(engine: AsyncEngine) -> int:
    """Messages stored, by the numbers of the conversations: cheap enough to ask again and again."""
    async with engine.connect() as connection:
        return int(
            (await connection.execute(select(func.sum(tables.conversation.c.max_seq)))).scalar()
            or 0
        )


async def until(engine: AsyncEngine, expected: int) -> float:
    """Waits until so many messages are stored, for a minute at most. Returns `perf_counter` of that moment."""
    give_up = perf_counter() + WAIT_S
    while await count(engine) < expected and perf_counter() < give_up:
        await asyncio.sleep(0.02)
    return perf_counter()


async def verify(engine: AsyncEngine, expected: int, *, exact: bool) -> Result:
    """Every message once, numbered from 1 without gaps, with its idempotence key.

    `exact`: no more than expected either (not so if a client got an error: its message may be stored all the same).
    """
    result = Result()
    total = 0
    async with engine.connect() as connection:
        months = await connection.execute(select(tables.conversation_month.c.month).distinct())
        found: dict[str, list[int]] = {}
        for month in list(months.scalars()):
            c = tables.message_table(month).c
            rows = await connection.execute(
                select(
                    c.conversation_id,
                    func.count(c.seq.distinct()),
                    func.count(c.client_msg_id.distinct()),
                    func.min(c.seq),
                    func.max(c.seq),
                ).group_by(c.conversation_id)
            )
            for conversation_id, *numbers in rows:
                found.setdefault(conversation_id, []).extend(numbers)
        for conversation_id, max_seq in await connection.execute(
            select(tables.conversation.c.conversation_id, tables.conversation.c.max_seq)
        ):
            numbers = found.get(conversation_id, [0, 0, 0, 0])
            total += numbers[0]
            # A run over midnight of a month's end has two tables; their numbers then only add up.
            if len(numbers) == 4 and numbers != [max_seq, max_seq, 1, max_seq]:
                result.problem("conversations with gaps or doubles in SQL")
        keys = (
            await connection.execute(select(func.count()).select_from(tables.message_key))
        ).scalar_one()
    result.problem("stored without a key", total - keys)
    result.problem("acked and not stored", max(0, expected - total))
    if exact:
        result.problem("stored and not acked", max(0, total - expected))
    return result
