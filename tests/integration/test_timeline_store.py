"""The timeline on SQLite and MariaDB: overtaken, over the end of a month, and into rows that are there or refused."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.timeline.state import Progress
from functions.timeline.store import UNKNOWN, FencedError, SqlStore
from migrations.schema import upgrade
from shared import tables
from shared.adapters.memory_log import MemoryLog
from shared.adapters.sql import open_engine
from shared.ids import month_of, now_ms
from shared.log import DEAD
from shared.months import next_month
from tests.archive import Archive
from tests.chaos.test_mutations import CONVERSATION, Road

DAY_MS = 86_400_000


@pytest.fixture
async def engine(db_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(db_url)
    await upgrade(opened)
    yield opened
    await opened.dispose()


async def seqs(engine: AsyncEngine, month: int) -> list[int]:
    table = tables.message_table(month)
    async with engine.connect() as connection:
        found = await connection.execute(table.select().order_by(table.c.seq))
        return [row.seq for row in found]


async def test_who_was_overtaken_learns_where_when_he_loads(engine: AsyncEngine) -> None:
    store = SqlStore(engine)
    expected = {p: {progress} for p, progress in (await store.claim(range(64))).items()}
    loads = (
        lambda: store.load(expected, [CONVERSATION], [b"k" * 16]),
        lambda: store.load(expected, [], []),
        lambda: store.load_referred(expected, [1], [(1, CONVERSATION)]),
    )
    for load in loads:
        await load()
    c = tables.log_progress.c
    async with engine.begin() as connection:
        await connection.execute(
            tables.log_progress.update().where(c.partition.in_((3, 17))).values(counter=1)
        )
        await connection.execute(tables.log_progress.delete().where(c.partition == 63))
    for load in loads:
        with pytest.raises(FencedError) as fenced:
            await load()
        assert fenced.value.partitions == {3, 17, 63}
    with pytest.raises(FencedError):
        await store.load({63: expected[63]}, [], [])
    expected[17].add(Progress(counter=1))  # his own COMMIT, which has ended meanwhile
    for load in loads:
        with pytest.raises(FencedError) as fenced:
            await load()
        assert fenced.value.partitions == {3, 63}


async def test_what_an_older_release_has_stored_is_looked_up(engine: AsyncEngine) -> None:
    store = SqlStore(engine)
    expected = {0: {(await store.claim([0]))[0]}}
    head = {"conversation_id": CONVERSATION, "max_seq": 7, "max_rev": 0, "changed_ms": 0}
    newest = {"max_uuid": "01937c5e-8f3a-7cc1-9d0e-5f6b2a4c8e11", "max_uuid_seq": 7}
    async with engine.begin() as connection:
        await connection.execute(tables.conversation.insert().values(head | newest))
    loaded = await store.load(expected, [CONVERSATION], [])
    assert loaded.conversations[CONVERSATION].max_uuid == newest["max_uuid"]
    async with engine.begin() as connection:
        await connection.execute(tables.conversation.update().values(max_seq=8))
    loaded = await store.load(expected, [CONVERSATION], [])
    assert loaded.conversations[CONVERSATION].max_uuid == UNKNOWN > newest["max_uuid"]


async def test_what_was_stored_lately_is_found_by_partition(engine: AsyncEngine) -> None:
    store, archive = SqlStore(engine), Archive(engine)  # which writes to partition 0
    assert await store.lately({0: Progress(), 1: Progress()}) == []
    first = await archive.send("p_1_2", 1)
    archive.skip(8_000)
    await archive.send("p_1_3", 1)
    await archive.send("p_1_3", 1)
    second = await archive.change("p_1_3", 1, content="edited")
    archive.skip(20_000)
    last = await archive.send("g_4", 1)

    async def lately(**ends: int) -> list[tuple[str, int, int]]:
        progress = {int(p[1:]): Progress(1, ms) for p, ms in ends.items()}
        return sorted(newest[:3] for newest in await store.lately(progress))

    early = [("p_1_2", 1, 0), ("p_1_3", 2, second)]
    assert await lately(p0=last.timestamp) == [("g_4", 1, 0)]
    assert await lately(p0=first.timestamp + 9_000) == [("g_4", 1, 0), *early]
    assert await lately(p0=first.timestamp, p1=last.timestamp) == [("g_4", 1, 0), *early]
    assert await lately(p1=last.timestamp) == []
    assert await lately(p0=first.timestamp - DAY_MS, p1=last.timestamp) == [("g_4", 1, 0)]


async def test_a_conversation_goes_on_in_the_next_month(engine: AsyncEngine) -> None:
    road = Road(engine)
    clock = now_ms()
    road.log = MemoryLog(1, lambda: clock)
    await road.run(SqlStore(engine), range(10))
    clock += 70 * DAY_MS  # two months on: not even the migration has made that table
    await road.run(SqlStore(engine), range(10, 30))
    assert await seqs(engine, month_of(now_ms())) == list(range(1, 11))
    assert await seqs(engine, month_of(clock)) == list(range(11, 31))
    assert await seqs(engine, next_month(month_of(clock))) == []
    async with engine.connect() as connection:
        found = await connection.execute(tables.conversation_month.select())
        assert sorted(tuple(row) for row in found) == [
            (CONVERSATION, month_of(now_ms()), 1),
            (CONVERSATION, month_of(clock), 11),
        ]


async def test_a_row_in_the_way_is_an_alarm_and_stops_nobody(engine: AsyncEngine) -> None:
    road = Road(engine)
    await road.run(SqlStore(engine), range(10))
    month = month_of(now_ms())
    await road.change("UPDATE message_{month} SET seq = 15, content = 'alien' WHERE seq = 10")
    await road.run(SqlStore(engine), range(10, 20))
    assert await seqs(engine, month) == [*range(1, 10), *range(11, 21)]
    assert len(road.log.records(DEAD)) == 1
    async with engine.connect() as connection:
        alien = text(f"SELECT content FROM message_{month} WHERE seq = 15")
        assert (await connection.execute(alien)).scalar_one() == "alien"


@pytest.mark.parametrize("db_url", ["mariadb"], indirect=True)  # SQLite refuses no length
async def test_a_row_that_sql_refuses_is_an_alarm_and_stops_nobody(engine: AsyncEngine) -> None:
    road = Road(engine)
    await road.change("ALTER TABLE message_{month} MODIFY content VARCHAR(24) NOT NULL")
    await road.run(SqlStore(engine), range(20))  # from "… message 10" on they are too long
    assert await seqs(engine, month_of(now_ms())) == list(range(1, 11))
    assert len(road.log.records(DEAD)) == 10
