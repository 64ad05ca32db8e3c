"""The gate's group half on a real Redis and SQL: who may write, who may read, and changes of either."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from sqlalchemy import Executable, insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.rights import Role
from shared import tables
from shared.adapters.redis import open_redis
from shared.adapters.sql import open_engine
from shared.errors import AppError, Muted, NotFound, NotMember
from shared.gate import Gate, group_key, member_key
from shared.ids import now_ms
from tests.servers import RedisServer

GROUP = 5
OWNER, ADMIN, MEMBER, STRANGER = 1, 2, 3, 4


def seat(user_id: int, role: int) -> dict[str, object]:
    return {
        "group_id": GROUP,
        "user_id": user_id,
        "role": role,
        "joined_at": "2026-01-01 00:00:00.000",
        "joined_ms": 0,
    }


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(f"sqlite+aiosqlite:///{tmp_path}/im.db")
    names = ("username", "username_key", "nickname", "nickname_key")
    async with engine.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
        for i in (OWNER, ADMIN, MEMBER, STRANGER):
            await connection.execute(
                insert(tables.user).values(
                    password_hash="", created_ms=0, **dict.fromkeys(names, f"u{i}")
                )
            )
        await connection.execute(
            insert(tables.group).values(
                id=GROUP,
                name="g",
                owner_id=OWNER,
                created_at="2026-01-01 00:00:00.000",
                announcement="",
                join_mode="open",
                past="hidden",
                member_count=3,
                version=1,
                members_version=1,
                created_ms=0,
                changed_ms=0,
            )
        )
        seats = [seat(OWNER, 2), seat(ADMIN, 1), seat(MEMBER, 0)]
        await connection.execute(insert(tables.group_member), seats)
    yield engine
    await engine.dispose()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = open_redis(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def gate(engine: AsyncEngine, client: redis.asyncio.Redis) -> Gate:
    return Gate(client, engine, limits=True, strangers=False)


async def run(engine: AsyncEngine, statement: Executable) -> None:
    async with engine.begin() as connection:
        await connection.execute(statement)


async def refusals(gate: Gate) -> list[str]:
    """What owner, admin, member and stranger hear when they write; "" if nothing is in the way."""
    heard = []
    for user_id in (OWNER, ADMIN, MEMBER, STRANGER):
        try:
            await gate.group(user_id, GROUP)
            heard.append("")
        except AppError as error:
            heard.append(error.code)
    return heard


async def test_members_write_and_others_do_not(gate: Gate) -> None:
    for _ in range(2):  # out of SQL, then out of the copies
        assert await refusals(gate) == ["", "", "", "not_member"]
        assert [await gate.member(u, GROUP) for u in (OWNER, ADMIN, MEMBER)] == [
            Role.OWNER,
            Role.ADMIN,
            Role.MEMBER,
        ]
        with pytest.raises(NotMember):
            await gate.member(STRANGER, GROUP)
    with pytest.raises(NotFound, match="no group 6"):
        await gate.group(OWNER, 6)


async def test_while_all_are_muted_the_owner_and_admins_write(
    gate: Gate, engine: AsyncEngine
) -> None:
    await refusals(gate)
    await run(engine, update(tables.group).values(mute_all=1))
    await gate.copies.forget(group_key(GROUP))
    for _ in range(2):
        assert await refusals(gate) == ["", "", "muted", "not_member"]
    assert await gate.member(MEMBER, GROUP) is Role.MEMBER


async def test_a_muted_member_reads_and_writes_again_when_the_time_is_over(
    gate: Gate, engine: AsyncEngine
) -> None:
    row = tables.group_member.c
    mute = update(tables.group_member).where(row.user_id == MEMBER)
    await run(engine, mute.values(muted_ms=now_ms() + 60_000))
    for _ in range(2):
        with pytest.raises(Muted):
            await gate.may_write(MEMBER, GROUP)
        assert await gate.member(MEMBER, GROUP) is Role.MEMBER
    await run(engine, mute.values(muted_ms=now_ms() - 1))
    await gate.copies.forget(member_key(GROUP, MEMBER))
    for _ in range(2):
        assert await gate.may_write(MEMBER, GROUP) is Role.MEMBER


async def test_a_dissolved_group_is_gone(gate: Gate, engine: AsyncEngine) -> None:
    await refusals(gate)
    await run(engine, update(tables.group).values(dissolved_ms=1))
    await gate.copies.forget(group_key(GROUP))
    assert await refusals(gate) == ["not_found"] * 4


async def test_what_is_known_is_not_asked_of_sql_again(
    gate: Gate, client: redis.asyncio.Redis
) -> None:
    await refusals(gate)
    nowhere = open_engine("sqlite+aiosqlite:////does/not/exist/im.db")
    broken = Gate(client, nowhere, limits=True, strangers=False)
    assert await refusals(broken) == ["", "", "", "not_member"]
