"""Two users who talk while the system around them is killed, and the check of what must hold afterwards."""

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.python.natterjack import Client, MessageReceived
from schemas.messages import Message, MessageAck, SendMessage
from tests.facts import take_facts
from tests.support import until
from tests.system import System

MESSAGES = int(os.environ.get("IM_CHAOS_MESSAGES", "2000"))
SEED = int(os.environ.get("IM_CHAOS_SEED", "1"))
IN_FLIGHT = 16
"""Sends under way at a time, of each side."""


@dataclass
class Side:
    """One user: what he was told and what he received."""

    client: Client
    acks: dict[str, MessageAck] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    received: list[Message] = field(default_factory=list)


Disturb = Callable[[Callable[[], int]], Coroutine[Any, Any, None]]
"""Does harm while the two talk; is given a function that tells how many messages are acked so far."""


def kill_in_turn(system: System, victims: Sequence[str]) -> Disturb:
    """Kills each victim, in an order of the seed, spread over the whole conversation; one round per 2,000 messages."""
    order = random.Random(SEED).sample(victims, len(victims)) * max(1, MESSAGES // 2000)

    async def disturb(acked: Callable[[], int]) -> None:
        for i, name in enumerate(order, 1):
            await reaches(acked, MESSAGES * i // (len(order) + 1))
            system.kill(name)

    return disturb


async def reaches(acked: Callable[[], int], share: int) -> None:
    """Returns when so many messages are acked."""
    await until(lambda: acked() >= share, 180)


async def talk(system: System, count: int, disturb: Disturb) -> tuple[Side, Side]:
    """Sends `count` messages, half from each side, while `disturb` runs; returns when both have them all."""
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        sides = Side(alice), Side(bob)
        listeners = [asyncio.create_task(_listen(side, count)) for side in sides]
        disturbing = asyncio.create_task(disturb(lambda: sum(len(side.acks) for side in sides)))
        await asyncio.gather(
            _send(sides[0], bob.user_id, "a", count // 2),
            _send(sides[1], alice.user_id, "b", count - count // 2),
        )
        await disturbing
        await system.ready()
        await asyncio.gather(*listeners)
        return sides


async def _send(side: Side, peer: int, prefix: str, count: int) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(i: int) -> None:
        async with slots:
            key, content = f"{prefix}-{i}", f"message {i} of {prefix}"
            side.contents[key] = content
            side.acks[key] = await side.client.send_message(
                SendMessage(key, content, receiver_id=peer)
            )

    async with asyncio.TaskGroup() as group:
        for i in range(count):
            group.create_task(one(i))


async def _listen(side: Side, count: int) -> None:
    async for event in side.client.events():
        if isinstance(event, MessageReceived):
            side.received.append(event.message)
            if len(side.received) == count:
                return


async def check(system: System, sides: tuple[Side, Side]) -> None:
    """What was acked is stored; both sides saw just that, and so do those who read the facts."""
    acks = sides[0].acks | sides[1].acks
    conversation_id = next(iter(acks.values())).conversation_id
    rows = await _stored_rows(system, conversation_id, len(acks))
    compare(acks, sides[0].contents | sides[1].contents, rows)
    for side in sides:
        seen = [(m.seq, m.msg_id, m.content) for m in side.received]
        assert seen == [(row["seq"], row["msg_id"], row["content"]) for row in rows]
    facts = await take_facts(system.servers["nats"].url, len(rows), conversation_id)
    assert [(fact.data.seq, fact.data.msg_id) for fact in facts] == [
        (row["seq"], row["msg_id"]) for row in rows
    ], "the facts are not what happened"


async def _stored_rows(system: System, conversation_id: str, count: int) -> list[dict[str, Any]]:
    """The rows of a conversation, once there are `count` of them: a COMMIT may follow its acks by a moment."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(TimeoutError):  # then the comparison says what is missing
        async with asyncio.timeout(30):
            while len(rows) < count:
                rows = await system.rows(conversation_id)
    return rows


def compare(
    acks: Mapping[str, MessageAck], contents: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Every ack (by client_msg_id) is a row, once, with the numbers that the sender was told, and there is no gap."""
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), (
        "numbers have a gap or a double"
    )
    assert len({row["msg_id"] for row in rows}) == len(rows), "a msg_id stands twice"
    stored = {row["client_msg_id"]: row for row in rows}
    assert len(stored) == len(rows), "a message is stored twice"
    assert set(acks) == set(stored), "acked and stored differ"
    for key, ack in acks.items():
        row = stored[key]
        assert (row["msg_id"], row["seq"], row["content"]) == (
            ack.msg_id,
            ack.seq,
            contents[key],
        ), "a row is not what was acked"
