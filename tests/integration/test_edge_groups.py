"""Groups over several real edge processes and a real nats-server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from shared.adapters.nats import NatsBus
from tests.edge import Client, EdgeProcess, connect, token
from tests.group_service import GroupService
from tests.servers import NatsServer
from tests.support import until

GROUP = 5


@pytest.fixture
def edges(nats_server: NatsServer) -> Iterator[list[EdgeProcess]]:
    with EdgeProcess(nats_server.url) as one, EdgeProcess(nats_server.url) as two:
        yield [one.wait_until_ready(), two.wait_until_ready()]


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.open(nats_server.url, "test")
    yield bus
    await bus.close()


@pytest.fixture
async def groups(bus: NatsBus) -> GroupService:
    service = GroupService(bus)
    await bus.flush()
    return service


class Listener:
    """A device that notes all that it gets."""

    def __init__(self, client: Client, user_id: int) -> None:
        self.client = client
        self.user_id = user_id
        self.frames: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self.client.ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.frames.append(json.loads(message.data))

    @property
    def numbers(self) -> list[int]:
        return [f["data"]["n"] for f in self.frames if f["type"] == "message"]

    async def got(self, kind: str, count: int = 1) -> None:
        await until(lambda: sum(f["type"] == kind for f in self.frames) >= count)

    def close(self) -> None:
        self._task.cancel()


@asynccontextmanager
async def listening(edges: list[EdgeProcess], users: range) -> AsyncIterator[list[Listener]]:
    """A device for each user, spread over the edges."""
    async with AsyncExitStack() as stack:
        found = []
        for user_id in users:
            edge = edges[user_id % len(edges)]
            client = await stack.enter_async_context(connect(edge.url, token(user_id)))
            listener = Listener(client, user_id)
            stack.callback(listener.close)
            found.append(listener)
        yield found


def message(n: int) -> bytes:
    return b'{"type":"message","data":{"n":%d}}' % n


async def test_members_come_and_go_while_messages_flow(
    edges: list[EdgeProcess], bus: NatsBus, groups: GroupService
) -> None:
    """Whoever stays gets all, once and in order; whoever was removed gets nothing that was written after it."""
    groups.put(GROUP, 1, 2, 3, 4)
    async with listening(edges, range(1, 9)) as devices:
        written = 0
        expected: dict[int, list[int]] = {d.user_id: [] for d in devices}
        last: dict[int, int] = {}

        async def write(count: int) -> None:
            nonlocal written
            for _ in range(count):
                written += 1
                for user_id in groups.members[GROUP]:
                    expected[user_id].append(written)
                groups.write(GROUP, message(written))
                await asyncio.sleep(0)

        await write(200)
        for round_ in range(1, 21):
            leaver, comer = 3 + round_ % 6, 3 + (round_ + 3) % 6
            joined = {comer} - groups.members[GROUP]
            left = {leaver} & groups.members[GROUP]
            groups.change(GROUP, joined, left, lost=round_ % 5 == 0 and not joined)
            for user_id in left:
                last[user_id] = written
            await write(20)
        stayed = [d for d in devices if d.user_id in (1, 2)]
        for device in stayed:
            await device.got("message", written)
            assert device.numbers == list(range(1, written + 1))
        await bus.flush()
        for device in devices:
            await device.client.ws.send_str('{"type":"ping","id":"end"}')
            await device.got("ack")
            extra = set(device.numbers) - set(expected[device.user_id])
            assert not extra, f"{device.user_id} got what was written after he was removed"
            assert device.numbers == sorted(set(device.numbers)), "doubled or out of order"
        assert last, "somebody was removed"


async def test_a_lost_control_event_keeps_nobody_in(
    edges: list[EdgeProcess], groups: GroupService
) -> None:
    groups.put(GROUP, 1, 2, 3, 4)
    async with listening(edges, range(1, 5)) as devices:
        groups.change(GROUP, left=[3, 4], lost=True)
        for n in range(50):
            groups.write(GROUP, message(n))
        for device in devices[:2]:
            await device.got("message", 50)
            assert device.numbers == list(range(50))
        assert sorted(g for g, _ in groups.asked_among) == [GROUP] * 2, "each edge asks once"
        for device in devices[2:]:
            await device.client.ws.send_str('{"type":"ping","id":"end"}')
            await device.got("ack")
            assert device.numbers == []


async def test_joined_is_told_when_nothing_more_can_be_missed(
    edges: list[EdgeProcess], groups: GroupService
) -> None:
    groups.put(GROUP, 9)
    async with listening(edges, range(1, 3)) as devices:
        for n, device in enumerate(devices):
            groups.change(GROUP, joined=[device.user_id])
            await device.got("group.joined")
            groups.write(GROUP, message(n))
            await device.got("message")
        assert [d.numbers for d in devices] == [[0, 1], [1]]


async def test_connects_are_asked_for_together_and_leave_nothing_behind(
    edges: list[EdgeProcess], bus: NatsBus, groups: GroupService, nats_server: NatsServer
) -> None:
    users = range(1, 41)
    groups.put(GROUP, *users)
    for user_id in users:
        groups.put(100 + user_id, user_id)
    async with AsyncExitStack() as stack:
        sockets = [connect(edges[0].url, token(user_id)) for user_id in users]
        await asyncio.gather(*(stack.enter_async_context(s) for s in sockets))
        assert sorted(u for asked in groups.asked for u in asked) == list(users)
        assert len(groups.asked) < len(users)
        await until(lambda: len([s for asked in groups.checked for s in asked]) == len(users))
    # Nobody is here any more: nobody listens for any group.
    asked = len(groups.asked)
    groups.change(GROUP, left=[1])
    groups.write(GROUP, message(1))
    await bus.flush()
    async with connect(edges[0].url, token(1)) as back:
        await back.alive()
    assert len(groups.asked) == asked + 1
    assert groups.asked_among == []


async def test_after_nats_was_away_memberships_are_read_again(
    edges: list[EdgeProcess], nats_server: NatsServer, bus: NatsBus, groups: GroupService
) -> None:
    groups.put(GROUP, 1)
    groups.put(6, 2)
    async with listening(edges, range(1, 3)) as devices:
        nats_server.kill()
        try:
            await until(lambda: edges[0].status("/readyz") == 503)
            groups.put(GROUP, 2)
        finally:
            nats_server.start()
        for device in devices:
            await device.got("resync")
        await until(lambda: bus.connected)
        # An edge that was back before the service asks again a moment later.
        while not devices[1].numbers:
            groups.write(GROUP, message(1))
            await asyncio.sleep(0.05)
        assert devices[0].numbers == []


async def test_ready_does_not_wait_for_a_service_that_is_away(
    edges: list[EdgeProcess], groups: GroupService
) -> None:
    groups.put(GROUP, 1)
    groups.refusing = True
    async with listening(edges, range(1, 2)) as (device,):
        groups.refusing = False
        await device.got("resync")
        groups.write(GROUP, message(1))
        await device.got("message")
