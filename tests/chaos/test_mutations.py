"""The checks are themselves tried: each rule of the road is broken once, and the check must turn red.

The broken rules are tried on a real MariaDB by the check of the chaos tests. That two owners without compare-and-set
are caught is shown by `tests/unit/test_timeline_shell.py`, which has the interleavings for it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from functions.timeline.pending import Pending
from functions.timeline.shell import Timeline
from functions.timeline.state import Effect
from functions.timeline.store import SqlStore
from migrations.schema import upgrade
from schemas.messages import MessageAck
from schemas.records import SendRequested
from shared import tables
from shared.adapters import bulk
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.adapters.sql import open_engine
from shared.ids import month_of, now_ms
from shared.log import REQUESTS
from tests.chaos.conversation import compare
from tests.servers import MariaDbServer
from tests.support import until

CONVERSATION = "p_1_2"
COUNT = 40
INBOX = f"_INBOX.e.{'x' * 22}"


class NoCache:
    async def put(self, effects: Iterable[Effect]) -> None:
        del effects


class Road:
    """From the log to MariaDB, and what the sender was told."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.log = MemoryLog(1)
        self.bus = MemoryBus()
        self.acks: dict[str, MessageAck] = {}
        self.contents: dict[str, str] = {}
        self.bus.listen("_INBOX.e.>", self._answered)

    def _answered(self, subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        assert not headers
        self.acks[subject.rpartition(".")[2]] = msgspec.json.decode(payload, type=MessageAck)

    def send(self, i: int) -> bytes:
        """The record of a message."""
        name = f"m{i}"
        self.contents[name] = f"the content of message {i}"
        request = SendRequested(
            conversation_id=CONVERSATION,
            user_id=1 + i % 2,
            at=0,
            reply=f"{INBOX}.{name}",
            client_msg_id=name,
            msg_type=1,
            content=self.contents[name],
        )
        return msgspec.json.encode(request)

    async def run(self, store: SqlStore, numbers: range) -> None:
        """A timeline that works until everything is acked, then stops in an orderly way. Raises what it raises."""
        timeline = Timeline(store, NoCache(), self.bus, self.log, commit_s=0.0)
        task = asyncio.create_task(timeline.run(self.log.reader(REQUESTS, timeline)))
        try:
            for i in numbers:
                self.log.put(REQUESTS, 0, self.send(i))
                if i % 10 == 9:  # several commits
                    await until(lambda: task.done() or f"m{i}" in self.acks)  # noqa: B023
                    await asyncio.sleep(0)
            if not task.done():
                await timeline.stop()
            await task
        finally:
            task.cancel()

    async def check(self) -> None:
        """The check of the chaos tests."""
        month = tables.message_table(month_of(now_ms()))
        async with self.engine.connect() as connection:
            found = await connection.execute(month.select().order_by(month.c.seq))
            compare(self.acks, self.contents, [dict(row) for row in found.mappings()])

    async def change(self, statement: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement.format(month=month_of(now_ms()))))


@pytest.fixture
async def road(mariadb_server: MariaDbServer) -> AsyncIterator[Road]:
    engine = open_engine(await mariadb_server.new_database())
    await upgrade(engine)
    yield Road(engine)
    await engine.dispose()


async def red(road: Road, what: str) -> None:
    """The check fails, and for this reason."""
    with pytest.raises(AssertionError, match=what):
        await road.check()


async def test_nothing_is_red_as_it_should_be(road: Road) -> None:
    await road.run(SqlStore(road.engine), range(COUNT))
    await road.check()


async def test_ack_before_the_log(road: Road) -> None:
    """`send` answers by itself, and is killed before its record has left."""
    await road.run(SqlStore(road.engine), range(COUNT))
    road.send(COUNT)
    road.acks[f"m{COUNT}"] = MessageAck("1", f"m{COUNT}", CONVERSATION, COUNT + 1, now_ms())
    await red(road, "acked and stored differ")


class Killed(Exception):
    pass


class ProgressFirst(SqlStore):
    """Moves `log_progress` in a transaction of its own; killed after the second one."""

    commits = 0

    async def _insert_all(self, batch: Mapping[int, Pending]) -> None:
        self.commits += 1
        if self.commits != 2:
            await super()._insert_all(batch)
            return
        async with self._engine.begin() as connection:
            for partition, pending in batch.items():
                await connection.execute(
                    tables.log_progress.update().where(tables.log_progress.c.partition == partition),
                    {"next": pending.new.next, "last_ms": pending.new.last_ms, "counter": pending.new.counter},
                )  # fmt: skip
        raise Killed


async def test_progress_before_the_rows(road: Road) -> None:
    with pytest.raises(ExceptionGroup):
        await road.run(ProgressFirst(road.engine), range(COUNT))
    await road.run(SqlStore(road.engine), range(COUNT, COUNT + 10))
    await red(road, "acked and stored differ|numbers have a gap")


class Ignoring(bulk.Inserter):
    def _statement(self, table: Any, columns: int) -> str:
        return super()._statement(table, columns).replace("INSERT INTO", "INSERT IGNORE INTO")


async def test_insert_ignore_with_a_content_that_is_too_long(road: Road) -> None:
    await road.change("ALTER TABLE message_{month} MODIFY content VARCHAR(10) NOT NULL")
    store = SqlStore(road.engine)
    store._rows = Ignoring(road.engine)
    await road.run(store, range(COUNT))
    await red(road, "not what was acked")


class Twice(SqlStore):
    """Repeats a COMMIT whose answer it believes to be lost, without a look at `log_progress`."""

    async def _insert_all(self, batch: Mapping[int, Pending]) -> None:
        await super()._insert_all(batch)
        async with self._engine.begin() as connection:
            for pending in batch.values():
                for month, rows in pending.messages.items():
                    await self._rows.insert(connection, tables.message_table(month), rows)


async def test_applied_twice_without_unique_keys(road: Road) -> None:
    await road.change(
        "ALTER TABLE message_{month} DROP PRIMARY KEY, DROP INDEX uk_message_{month}_msg_id,"
        " DROP INDEX uk_message_{month}_conversation_seq"
    )
    await road.run(Twice(road.engine), range(COUNT))
    await red(road, "a gap or a double")


async def test_applied_twice_with_them_does_no_harm(road: Road) -> None:
    await road.run(Twice(road.engine), range(COUNT))
    await road.check()
