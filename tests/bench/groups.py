"""Groups for a benchmark, put into SQL as `groups` and the timeline would: to invite 10,000 takes its time."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import tables
from shared.ids import now_ms, timestamp_text

GROUP = 1
"""The group that is written to."""
FIRST_QUIET = 1_000_000
"""Number of the first group that only is there."""
_AT_ONCE = 5_000


async def add_group(engine: AsyncEngine, members: Sequence[int]) -> None:
    """Makes GROUP; its first member owns it."""
    conversation_id = f"g_{GROUP}"
    await _add(engine, [(GROUP, members)])
    await _insert(
        engine,
        tables.conversation,
        [
            {
                "conversation_id": conversation_id,
                "max_seq": 0,
                "max_rev": 0,
                "changed_ms": now_ms(),
                "members_version": 1,
            }
        ],
    )
    rows = [{"user_id": user_id, "conversation_id": conversation_id} for user_id in members]
    await _insert(engine, tables.user_conversation, rows)


async def add_quiet_groups(engine: AsyncEngine, users: int, each: int) -> None:
    """Makes `each` groups for every user of 1 … `users`, in which nobody else is: no subscription is shared."""
    groups = (
        (FIRST_QUIET + user_id * each + i, [user_id])
        for user_id in range(1, users + 1)
        for i in range(each)
    )
    await _add(engine, list(groups))


async def _add(engine: AsyncEngine, groups: list[tuple[int, Sequence[int]]]) -> None:
    now = now_ms()
    await _insert(
        engine,
        tables.group,
        [
            {
                "id": group_id,
                "name": f"group {group_id}",
                "owner_id": members[0],
                "max_members": len(members),
                "announcement": "",
                "join_mode": "open",
                "past": "hidden",
                "member_count": len(members),
                "version": 1,
                "members_version": 1,
                "created_ms": now,
                "changed_ms": now,
                "created_at": timestamp_text(now // 1000),
            }
            for group_id, members in groups
        ],
    )
    await _insert(
        engine,
        tables.group_member,
        [
            {
                "group_id": group_id,
                "user_id": user_id,
                "role": 2 if user_id == members[0] else 0,
                "joined_ms": now,
                "joined_at": timestamp_text(now // 1000),
            }
            for group_id, members in groups
            for user_id in members
        ],
    )


async def _insert(engine: AsyncEngine, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    every = list(rows)
    async with engine.begin() as connection:
        for i in range(0, len(every), _AT_ONCE):
            await connection.execute(table.insert(), every[i : i + _AT_ONCE])
