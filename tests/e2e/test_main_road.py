"""Two users on the whole system: log-in, messages both ways, repeats, pages, devices."""

import asyncio
from collections import Counter

import pytest

from clients.python.natterjack import Client, MessageReceived
from clients.python.natterjack.errors import ApiError
from schemas.messages import GetHistory, History, Message, Position, SendMessage, Sync, Synced
from tests.system import System


async def received(client: Client, count: int) -> list[Message]:
    """The next `count` messages that arrive at a client, its own included."""
    got: list[Message] = []
    async for event in client.events():
        if isinstance(event, MessageReceived):
            got.append(event.message)
            if len(got) == count:
                break
    return got


async def test_a_conversation_both_ways(system: System) -> None:
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        acks = []
        for i in range(20):
            sender, peer = (alice, bob) if i % 2 == 0 else (bob, alice)
            acks.append(await sender.send(peer=peer.user_id, text=f"message {i}"))
        assert [a.seq for a in acks] == list(range(1, 21))
        at_alice, at_bob = await asyncio.gather(received(alice, 20), received(bob, 20))
        assert (
            [m.msg_id for m in at_alice] == [m.msg_id for m in at_bob] == [a.msg_id for a in acks]
        )
        assert [m.content for m in at_bob] == [f"message {i}" for i in range(20)]
        assert at_alice == at_bob


async def test_the_same_id_again_is_the_same_message_for_ever(system: System) -> None:
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        peer = bob.user_id
        command = SendMessage("same-1", "once", receiver_id=peer)
        first = await alice.send_message(command)
        again = await asyncio.gather(*(alice.send_message(command) for _ in range(10)))
        assert all(ack == first for ack in again)
        with pytest.raises(ApiError) as caught:
            await alice.send_message(SendMessage("same-1", "something else", receiver_id=peer))
        assert caught.value.code == "conflict"
        # Also after a restart of everything, with Redis emptied.
        for name in ("functions", "timeline-1", "redis", "nats", "edge"):
            system.kill(name)
        await system.ready()
        assert await alice.send_message(command) == first
        second = await alice.send(peer=peer, text="next")
        assert second.seq == 2
        assert [m.seq for m in await received(bob, 2)] == [1, 2]
        rows = await system.stored(first.conversation_id, 2)
        assert [(r["seq"], r["client_msg_id"]) for r in rows][:1] == [(1, "same-1")]


async def test_pages_through_a_thousand_messages_both_ways(system: System) -> None:
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        acks = await asyncio.gather(
            *(alice.send(peer=bob.user_id, text=f"m{i}") for i in range(1000))
        )
        conversation_id = acks[0].conversation_id
        assert sorted(a.seq for a in acks) == list(range(1, 1001))
        by_seq = {a.seq: a.msg_id for a in acks}
        expected = [by_seq[s] for s in range(1, 1001)]
        assert [m.msg_id async for m in bob.messages(conversation_id)] == expected
        backward: list[str] = []
        before: int | None = None
        while True:
            page = await bob.request(
                GetHistory(conversation_id, before_seq=before, limit=77), History
            )
            assert page.max_seq == 1000
            backward = [m.msg_id for m in page.messages] + backward
            if not page.has_more:
                break
            before = page.messages[0].seq
        assert backward == expected


async def test_every_device_of_both_gets_everything_once(system: System) -> None:
    clients = [await system.user(name) for name in ("alice", "alice", "alice", "bob", "bob")]
    async with clients[0], clients[1], clients[2], clients[3], clients[4]:
        alice, bob = clients[0], clients[3]
        await asyncio.gather(
            *(alice.send(peer=bob.user_id, text=f"a{i}") for i in range(50)),
            *(bob.send(peer=alice.user_id, text=f"b{i}") for i in range(50)),
        )
        views = await asyncio.gather(*(received(client, 100) for client in clients))
        assert [m.seq for m in views[0]] == list(range(1, 101))
        assert all(view == views[0] for view in views)
        assert Counter(m.content for m in views[0]) == Counter(
            [f"{x}{i}" for x in "ab" for i in range(50)]
        )


async def test_strangers_cannot_read(system: System) -> None:
    async with (
        await system.user("alice") as alice,
        await system.user("bob") as bob,
        await system.user("eve") as eve,
    ):
        ack = await alice.send(peer=bob.user_id, text="between us")
        with pytest.raises(ApiError) as caught:
            await eve.request(GetHistory(ack.conversation_id), History)
        assert caught.value.code == "forbidden"


async def test_an_orderly_stop_ends_every_process_with_status_zero(system: System) -> None:
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        await alice.send(peer=bob.user_id, text="last")
    assert await system.stop() == {"edge": 0, "functions": 0, "timeline-1": 0}


async def test_a_device_that_comes_just_after_an_ack_gets_its_message(system: System) -> None:
    """Its push is over, and the COMMIT is still to come."""
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        known: list[Position] = []
        for seq in range(1, 11):
            ack = await alice.send(peer=bob.user_id, text=f"message {seq}")
            (found,) = (await bob.request(Sync(known), Synced)).conversations
            assert [m.msg_id for m in found.messages] == [ack.msg_id]
            assert (found.max_seq, found.has_more) == (seq, False)
            known = [Position(ack.conversation_id, seq, 0)]
