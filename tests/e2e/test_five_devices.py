"""Three devices of one user and two of another, one coming and going: after quiet all hold the same, byte for byte."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import msgspec
import pytest

from clients.python.natterjack import Client
from clients.python.natterjack.errors import ApiError
from clients.python.natterjack.positions import MemoryPositions
from schemas.messages import GetHistory, History, MessageAck
from tests.devices import Device
from tests.system import System

ROUNDS = 60
AT_ONCE = 4
"""Commands of one round, from random devices."""


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_five_devices_hold_the_same(system: System, seed: int) -> None:
    rng = random.Random(seed)
    store = MemoryPositions()
    async with AsyncExitStack() as stack:
        devices = [
            Device(await stack.enter_async_context(await system.user(name)))
            for name in ("alice", "alice", "bob", "bob")
        ]
        users = sorted({device.client.user_id for device in devices})
        wanderer = Device(await (await system.user("alice", store=store)).__aenter__())
        acks = [await devices[0].client.send(peer=users[-1], text="the first")]
        there = True
        for _ in range(ROUNDS):
            present = [*devices, wanderer] if there else devices
            await asyncio.gather(
                *(act(rng, rng.choice(present).client, users, acks) for _ in range(AT_ONCE))
            )
            if rng.random() < 0.2:
                if there:
                    await wanderer.leave()
                else:
                    wanderer.listen(await (await system.user("alice", store=store)).__aenter__())
                there = not there
        if not there:
            wanderer.listen(await (await system.user("alice", store=store)).__aenter__())
        stack.push_async_callback(wanderer.leave)
        messages, reads = await truth(devices[0].client, acks[0].conversation_id)
        for device in (*devices, wanderer):
            await device.until(lambda d: held(d) == messages and d.reads == reads)
        await system.ready()
        rows = await system.stored(acks[0].conversation_id, len(messages))
        assert [row["seq"] for row in rows] == list(range(1, len(messages) + 1))
        assert all(not row["content"] for row in rows if row["status"])


async def act(
    rng: random.Random, client: Client, users: Sequence[int], acks: list[MessageAck]
) -> None:
    """One random command. What cannot be (not one's own, recalled already) is refused, and changes nothing."""
    recent = rng.choice(acks[-12:])
    peer = next(user for user in users if user != client.user_id)
    number = rng.randrange(1_000)
    kind = rng.choices(
        ("send", "recall", "edit", "react", "unreact", "pin", "read"), (40, 8, 15, 12, 6, 6, 13)
    )[0]
    with suppress(ApiError):
        match kind:
            case "send":
                acks.append(await client.send(peer=peer, text=f"message {number}"))
            case "recall":
                await client.recall(recent.msg_id)
            case "edit":
                await client.edit(recent.msg_id, f"edit {number}", ["all"] if number % 2 else [])
            case "react":
                await client.react(recent.msg_id, "👍🎉😀"[number % 3])
            case "unreact":
                await client.react(recent.msg_id, "👍🎉😀"[number % 3], remove=True)
            case "pin":
                await client.pin(recent.msg_id, remove=number % 3 == 0)
            case "read":
                await client.read(recent.conversation_id, recent.seq)


async def truth(client: Client, conversation_id: str) -> tuple[dict[int, bytes], dict[int, int]]:
    """All messages and the read positions, as the server has them."""
    found: dict[int, bytes] = {}
    while True:
        page = await client.request(
            GetHistory(conversation_id, after_seq=len(found), after_rev=0, limit=200), History
        )
        found |= {message.seq: msgspec.json.encode(message) for message in page.messages}
        if not page.has_more:
            return found, {read.user_id: read.seq for read in page.reads if read.seq}


def held(device: Device) -> dict[int, bytes]:
    """The device's messages as JSON."""
    return {seq: msgspec.json.encode(message) for seq, message in device.messages.items()}
