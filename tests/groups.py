"""Function `groups` on real SQL and Redis, in this process, with the log in memory and nobody who reads it.

What the timeline would answer stands in the records; `World.call` takes it from there.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, cast

import msgspec
from sqlalchemy import func, insert, select

import functions.groups
from migrations.schema import upgrade
from schemas.records import AnyRequest, SystemRequested
from shared import tables
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.adapters.nats import NatsBus
from shared.function import Context
from shared.gate import Gate
from shared.ids import now_ms
from shared.invoke import invoke
from shared.log import REQUESTS
from shared.resources import Resources
from shared.settings import Settings

_HANDLERS = {handler.command.type: handler for handler in functions.groups.function.handlers}
_NAMES = ("username", "username_key", "nickname", "nickname_key")


class World:
    """The function with users 1, 2, 3 …; `pushes` are (subject, type, data) in order."""

    def __init__(self, resources: Resources, bus: MemoryBus, log: MemoryLog, deps: Any) -> None:
        self.resources = resources
        self.bus = bus
        self.log = log
        self.deps = deps
        self.gate = Gate.of(resources)
        self.now = now_ms()
        self.pushes: list[tuple[str, str, Any]] = []
        self._replies = map("_INBOX.u.1.{}".format, count())
        for subjects in ("im.v1.user.*", "im.v1.group.*"):
            bus.listen(subjects, self._pushed)

    async def add_users(self, number: int) -> None:
        """Makes users, whose ids follow one another from 1 on."""
        async with self.resources.engine().begin() as connection:
            have = (await connection.execute(select(func.count(tables.user.c.id)))).scalar() or 0
            rows = [
                {"password_hash": "", "created_ms": 0, **dict.fromkeys(_NAMES, f"u{have + i}")}
                for i in range(1, number + 1)
            ]
            await connection.execute(insert(tables.user), rows)

    async def call(self, user: int, command: str, **data: object) -> Any:
        """The decoded answer, as the asker gets it in the end. Raises: AppError."""
        reply = next(self._replies)
        handler = _HANDLERS[f"group.{command}"]
        ctx = Context(user, self.deps, self.now, reply=reply)
        answer = await invoke(handler, msgspec.json.encode(data), ctx, self.bus, None)
        await self.bus.flush()
        if answer is None:
            (answer,) = {
                bytes(cast("msgspec.Raw", r.answer)) for r in self.records if r.reply == reply
            }
        return msgspec.json.decode(answer)

    async def create(self, owner: int, *members: int, **data: object) -> int:
        """A new group's id."""
        group = await self.call(owner, "create", name="g", member_ids=members, **data)
        return int(group["group_id"])

    @property
    def records(self) -> list[SystemRequested]:
        """The changes that are in the log, oldest first."""
        found = (msgspec.json.decode(r.value, type=AnyRequest) for r in self.log.records(REQUESTS))
        return [record for record in found if isinstance(record, SystemRequested)]

    async def members(self, group_id: int) -> dict[int, int]:
        """Role by user id, out of SQL."""
        row = tables.group_member.c
        async with self.resources.engine().connect() as connection:
            found = await connection.execute(
                select(row.user_id, row.role).where(row.group_id == group_id)
            )
            return {row.user_id: row.role for row in found}

    async def row(self, group_id: int) -> Mapping[str, Any]:
        """The group's row."""
        async with self.resources.engine().connect() as connection:
            found = await connection.execute(
                select(tables.group).where(tables.group.c.id == group_id)
            )
            return dict(found.mappings().one())

    def _pushed(self, subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        push = msgspec.json.decode(payload)
        self.pushes.append((subject.removeprefix("im.v1."), push["type"], push["data"]))


@asynccontextmanager
async def running(db_url: str, redis_url: str) -> AsyncIterator[World]:
    """Function `groups` on this database, migrated, and this Redis, emptied."""
    settings = Settings.load({"IM_DB_URL": db_url, "IM_REDIS_URL": redis_url})
    bus, log = MemoryBus(), MemoryLog(8)
    async with AsyncExitStack() as stack:
        # What is tested here uses of the bus only what `shared.bus.Bus` has.
        resources = await stack.enter_async_context(Resources(settings, cast("NatsBus", bus)))
        resources._writer = log
        await upgrade(resources.engine())
        await resources.redis().flushdb()
        deps = await stack.enter_async_context(functions.groups.function.lifespan(resources))
        yield World(resources, bus, log, deps)
