"""Changes of rights against a stream of sends, on SQLite and MariaDB: from the change's answer on, nothing passes.

The senders ask a gate of their own, as another process would: what the two share is Redis and SQL.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

import functions.friends
import functions.send
from functions.send.handler import Deps
from shared.errors import AppError
from shared.function import Context
from shared.gate import Gate
from shared.invoke import invoke
from tests.groups import World, running
from tests.servers import RedisServer

SENDERS = 8
BEFORE = 20
"""Sends that must have passed before the change begins."""
AFTER = 20
"""Sends that are tried after its answer, by each sender."""

(SEND,) = functions.send.function.handlers
(BLOCK,) = (h for h in functions.friends.function.handlers if h.command.type == "friend.block")


@pytest.fixture
async def world(db_url: str, redis_server: RedisServer) -> AsyncIterator[World]:
    async with running(db_url, redis_server.url) as world:
        await world.add_users(9)
        yield world


class Stream:
    """One user who sends without a pause, and how his sends ended: before and after the answer of the change."""

    def __init__(self, world: World, place: dict[str, object]) -> None:
        self._world = world
        self._place = place
        self._gate = Gate(
            world.resources.redis(),
            world.resources.engine(),
            limits=False,
            strangers=True,  # only what changes may refuse; with friends alone nobody here could begin
        )
        self.answered = False
        self.accepted = asyncio.Semaphore(0)
        self.after: list[str] = []

    async def run(self) -> None:
        """Sends until AFTER sends were begun after the answer."""
        late = 0
        while late < AFTER:
            # What counts is when a send is begun: one that is on its way may pass.
            begun_after = self.answered
            late += begun_after
            code = await self._send()
            if begun_after:
                self.after.append(code)
            elif code == "ok":
                self.accepted.release()
            await asyncio.sleep(0)

    async def _send(self) -> str:
        deps = Deps(self._gate, sources=None)  # type: ignore[arg-type]  # nothing is quoted
        ctx = Context(2, deps, self._world.now)
        data = b'{"client_msg_id":"c","content":"x",' + self._target() + b"}"
        try:
            await invoke(SEND, data, ctx, self._world.bus, self._world.log)
        except AppError as error:
            return error.code
        return "ok"

    def _target(self) -> bytes:
        ((name, value),) = self._place.items()
        return f'"{name}":{value}'.encode()


async def race(world: World, place: dict[str, object], change: Awaitable[object]) -> set[str]:
    """What sends begun after the change's answer hear."""
    stream = Stream(world, place)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(SENDERS):
            tasks.create_task(stream.run())
        for _ in range(BEFORE):
            await stream.accepted.acquire()
        try:
            await change
        finally:
            stream.answered = True
    assert len(stream.after) >= AFTER
    return set(stream.after)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "kick": ("not_member", {"uid": 2}),
    "mute": ("muted", {"uid": 2, "until": 2**53 - 1}),
    "mute_all": ("muted", {"on": True}),
    "dissolve": ("not_found", {}),
}


@pytest.mark.parametrize("command", CHANGES)
async def test_nothing_passes_after_the_answer(world: World, command: str) -> None:
    code, data = CHANGES[command]
    for _ in range(3):
        group_id = await world.create(1, 2, 3)
        change = world.call(1, command, id=group_id, **data)
        assert await race(world, {"group_id": group_id}, change) == {code}


async def test_nothing_passes_after_one_has_left(world: World) -> None:
    group_id = await world.create(1, 2)
    change = world.call(2, "leave", id=group_id)
    assert await race(world, {"group_id": group_id}, change) == {"not_member"}


async def test_nobody_writes_as_an_admin_who_is_none_any_more(world: World) -> None:
    group_id = await world.create(1, 2)
    await world.call(1, "role", id=group_id, uid=2, role=1)
    await world.call(1, "mute_all", id=group_id, on=True)
    change = world.call(1, "role", id=group_id, uid=2, role=0)
    assert await race(world, {"group_id": group_id}, change) == {"muted"}


async def test_nothing_passes_after_a_block(world: World) -> None:
    async def block() -> None:
        async with functions.friends.function.lifespan(world.resources) as deps:
            ctx = Context(1, deps, world.now)
            await invoke(BLOCK, b'{"id":2}', ctx, world.bus, None)

    assert await race(world, {"receiver_id": 1}, block()) == {"blocked"}


async def test_a_right_that_was_given_holds_at_once(world: World) -> None:
    group_id = await world.create(1, 2)
    await world.call(1, "mute", id=group_id, uid=2, until=2**53 - 1)
    gate = Gate.of(world.resources)
    for _ in range(5):
        with pytest.raises(AppError):
            await gate.may_write(2, group_id)
        await world.call(1, "mute", id=group_id, uid=2, until=0)
        await gate.may_write(2, group_id)
        await world.call(1, "kick", id=group_id, uid=2)
        with pytest.raises(AppError):
            await gate.may_write(2, group_id)
        await world.call(2, "join", id=group_id)
        await gate.may_write(2, group_id)
        await world.call(1, "mute", id=group_id, uid=2, until=2**53 - 1)
