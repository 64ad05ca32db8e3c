"""Functions as Knative runs them are rolled, killed and scaled to zero under load; what comes through their bridges.

Every request has exactly one answer, within its dead line: the bridge stays, and tells what it knows. One that may have
been carried out is repeated, and is the same then. IM_CHAOS_MESSAGES sets how many commands (1,000 by default).
"""

import asyncio
import itertools
import os
import random
from pathlib import Path

import msgspec
import pytest

from schemas.messages import SendMessage
from shared.ids import private_conversation
from tests import servers
from tests.bridged import Asker, Bridged, Reply, bridged
from tests.chaos.conversation import SEED
from tests.support import until

COMMANDS = int(os.environ.get("IM_CHAOS_MESSAGES", "1000"))
IN_FLIGHT = 16
FUNCTIONS = ("profile", "send", "history")


async def disturb(world: Bridged, done: list[Reply]) -> None:
    """One thing after the other happens to each function, twice, and a bridge is replaced."""
    harms = [
        (harm, name)
        for harm in ("scale_to_zero", "kill", "roll", "kill", "scale_to_zero", "roll")
        for name in random.Random(SEED).sample(FUNCTIONS, len(FUNCTIONS))
    ]
    steps = [*harms[: len(harms) // 2], ("replace", "profile"), *harms[len(harms) // 2 :]]
    for i, (harm, name) in enumerate(steps, 1):
        share = COMMANDS * i // (len(steps) + 1)
        await until(lambda share=share: len(done) >= share, 300)  # type: ignore[misc]
        if harm == "replace":
            world.add_bridge(name, "bridge-2")
            await asyncio.to_thread(world.system.processes[f"bridge-{name}"].stop)
            assert world.system.processes[f"bridge-{name}"].poll() == 0
        else:
            activator = world.activators[name]
            # One that is not there again yet cannot be harmed.
            await until(lambda a=activator: a.running or len(done) >= COMMANDS)  # type: ignore[misc]
            await getattr(activator, harm)()


async def ask_all(asker: Asker, users: tuple[int, int], done: list[Reply]) -> dict[str, Reply]:
    """All commands; returns the acks by `client_msg_id`."""
    acks: dict[str, Reply] = {}
    numbers = itertools.count()

    async def one(i: int) -> None:
        user, peer = users if i % 2 else users[::-1]
        kind = i % 5
        if kind < 2:
            command = SendMessage(f"c{i}", f"message {i}", receiver_id=peer)
            reply = await asker.until_known(user, "message.send", msgspec.json.encode(command))
            acks[f"c{i}"] = reply
            if i % 7 == 0:
                again = await asker.until_known(user, "message.send", msgspec.json.encode(command))
                assert again == reply
        elif kind == 2:
            reply = await asker.until_known(user, "user.get", b'{"id":%d}' % peer)
            assert reply.data.get("user_id") == peer
        elif kind == 3:
            nickname = f"name {i}"
            reply = await asker.until_known(
                user, "user.update", msgspec.json.encode({"nickname": nickname})
            )
            assert reply.data.get("user_id") == user
        else:
            page = {"conversation_id": private_conversation(*users), "limit": 5}
            reply = await asker.until_known(user, "message.history", msgspec.json.encode(page))
        assert reply.code == "ok", reply
        done.append(reply)

    async def lane() -> None:
        while (i := next(numbers)) < COMMANDS:
            await one(i)

    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return acks


@pytest.mark.slow
async def test_none_is_lost_and_none_answered_twice(tmp_path: Path) -> None:
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        async with bridged(tmp_path, nats, redis, FUNCTIONS) as world:
            async with await world.system.user("ann") as ann, await world.system.user("ben") as ben:
                users = ann.user_id, ben.user_id
            done: list[Reply] = []
            disturbing = asyncio.create_task(disturb(world, done))
            acks = await ask_all(world.asker, users, done)
            await disturbing
            # Each request was answered, and once.
            assert len(world.asker.answers) == world.asker.asked
            assert set(world.asker.answers.values()) == {1}
            # Each message is there, once, under the number that its ack says.
            rows = await world.system.stored(private_conversation(*users), len(acks))
            assert [row["seq"] for row in rows] == list(range(1, len(acks) + 1))
            assert {row["client_msg_id"]: row["seq"] for row in rows} == {
                name: reply.data["seq"] for name, reply in acks.items()
            }
            for activator in world.activators.values():
                assert activator.cold_starts >= 3
                assert set(activator.statuses) == {0}
