"""Changes of messages and positions on the whole system, on both stacks."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from clients.python.natterjack import Client
from clients.python.natterjack.errors import ApiError
from schemas.messages import GetHistory, History, Message, MessageAck
from tests.devices import Device
from tests.e2e.conftest import Start
from tests.system import System


async def history(client: Client, conversation: str) -> dict[int, Message]:
    page = await client.request(GetHistory(conversation, limit=200), History)
    return {m.seq: m for m in page.messages}


async def test_all_devices_and_sql_come_to_the_same(both_stacks: Start) -> None:
    async with (
        both_stacks() as system,
        await system.user("alice") as a,
        await system.user("alice") as a2,
        await system.user("bob") as b,
    ):
        alice, other, bob = Device(a), Device(a2), Device(b)
        acks = [await a.send(peer=b.user_id, text=f"message {i}") for i in range(1, 6)]
        conversation = acks[0].conversation_id
        edited = await a.edit(acks[1].msg_id, "edited", ["all"])
        assert (edited.seq, edited.rev) == (2, 1)
        assert (await b.react(acks[2].msg_id, "👍")).rev == 2
        assert (await a.react(acks[2].msg_id, "👍")).rev == 3
        assert (await a.react(acks[2].msg_id, "👍")).rev == 3, "it is there already"
        assert (await b.pin(acks[3].msg_id)).rev == 4
        assert (await a.recall(acks[4].msg_id)).rev == 5
        assert (await a.recall(acks[4].msg_id)).rev == 5
        position = await b.read(conversation, 99)
        assert (position.seq, position.rev, position.unread) == (5, 6, 0)
        assert (await b.read(conversation, 3)).seq == 5
        await a.delivered(conversation, 4)
        await asyncio.wait_for(bob.delivered.wait(), 20)
        for device in (alice, other, bob):
            await device.until(
                lambda d: (
                    len(d.messages) == 5
                    and d.messages[5].status == 1
                    and d.reads.get(b.user_id) == 5
                )
            )
        now = await history(b, conversation)
        assert alice.messages == other.messages == bob.messages == now
        assert (now[2].content, now[2].mentions, now[2].rev) == ("edited", ["all"], 1)
        assert [(r.emoji, r.count) for r in now[3].reactions] == [("👍", 2)]
        assert now[3].reactions[0].user_ids == [b.user_id, a.user_id]
        assert now[4].pinned
        assert (now[5].status, now[5].content) == (1, "")
        rows = await system.rows(conversation)
        assert [row["content"] for row in rows][4] == ""
        system.kill("redis")
        assert await history(b, conversation) == now, "what is stored is the same"


async def test_what_may_not_be(both_stacks: Start) -> None:
    async with (
        both_stacks(IM_RECALL_WINDOW_S="1") as system,
        await system.user("alice") as a,
        await system.user("bob") as b,
        await system.user("eve") as e,
    ):
        old = await a.send(peer=b.user_id, text="old")
        ack = await a.send(peer=b.user_id, text="hello")
        for refused, code in (
            (b.recall(ack.msg_id), "forbidden"),
            (b.edit(ack.msg_id, "x"), "forbidden"),
            (e.react(ack.msg_id, "x"), "not_found"),
            (e.read(ack.conversation_id, 1), "forbidden"),
            (a.pin("77"), "not_found"),
        ):
            with pytest.raises(ApiError) as caught:
                await refused
            assert caught.value.code == code
        fresh = await a.send(peer=b.user_id, text="not for long")
        await a.recall(fresh.msg_id)
        with pytest.raises(ApiError) as caught:
            await a.edit(fresh.msg_id, "back again")
        assert caught.value.code == "conflict"
        assert await late(a, old) == "recall_window_passed"


async def late(client: Client, ack: MessageAck) -> str:
    """The code of a recall when the window of a second is over, by the log's own time."""
    async for now in _messages_until(client, ack.timestamp + 1_500):
        del now
    try:
        await client.recall(ack.msg_id)
    except ApiError as error:
        return error.code
    return "recalled"


async def _messages_until(client: Client, ms: int) -> AsyncIterator[MessageAck]:
    peer = next(
        int(u) for u in (await _conversation(client)).split("_")[1:] if int(u) != client.user_id
    )
    while True:
        ack = await client.send(peer=peer, text="still early")
        yield ack
        if ack.timestamp > ms:
            return


async def _conversation(client: Client) -> str:
    async for conversation in client.conversations():
        return conversation.conversation_id
    raise AssertionError


async def test_a_recall_reaches_a_device_that_was_away(system: System) -> None:
    async with await system.user("alice") as a:
        async with await system.user("bob") as b:
            peer = b.user_id
        acks = await asyncio.gather(*(a.send(peer=peer, text=f"m{i}") for i in range(300)))
        edits = asyncio.gather(*(a.edit(ack.msg_id, "edited") for ack in acks[:50]))
        recalls = asyncio.gather(*(a.recall(ack.msg_id) for ack in acks[:50]))
        system.kill("timeline-1")
        results = await asyncio.gather(edits, recalls, return_exceptions=True)
        assert not isinstance(results[1], BaseException)
        async with await system.user("bob") as b:
            bob = Device(b)
            await bob.until(lambda d: len(d.messages) == 300)
            gone = {ack.seq for ack in acks[:50]}
            assert {m.seq for m in bob.messages.values() if m.status == 1} == gone
            assert all(not m.content for m in bob.states if m.seq in gone)
            assert await history(b, acks[0].conversation_id) == {
                s: m for s, m in bob.messages.items() if s > 100
            }
