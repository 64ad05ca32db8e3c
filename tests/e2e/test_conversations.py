"""The conversation list, contents by type, quotes and forwards, changes after an absence: over HTTP and WebSocket."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from clients.python.natterjack import (
    ApiError,
    Client,
    ConversationUpdated,
    Event,
    MemoryPositions,
    MessageChanged,
    MessageReceived,
    ReadMoved,
)
from schemas.contents import IMAGE, ImageContent
from schemas.conversations import (
    Conversations,
    ConversationState,
    ListConversations,
    ListReceipts,
    Receipts,
    UpdateConversation,
)
from schemas.messages import (
    Changed,
    EditMessage,
    GetHistory,
    History,
    Message,
    RecallMessage,
    SendMessage,
)
from tests.e2e.conftest import Start
from tests.system import System


async def event(client: Client, wanted: Callable[[Event], bool]) -> Event:
    """The next event of a client that is wanted."""
    async with asyncio.timeout(30):
        async for happened in client.events():
            if wanted(happened):
                return happened
    raise AssertionError("the events have ended")


async def test_the_list_is_right_at_once(both_stacks: Start) -> None:
    async with (
        both_stacks() as system,
        await system.user("alice") as alice,
        await system.user("bob") as bob,
    ):
        for n in range(1, 4):
            ack = await alice.send(peer=bob.user_id, text=f"text {n}", mentions=[bob.user_id])
            page = await bob.api.call(ListConversations(), Conversations)
            (entry,) = page.conversations
            assert (entry.unread, entry.mentions, entry.max_seq) == (n, n, n)
            assert entry.last_message is not None
            assert entry.last_message.content == f"text {n}"
        conversation_id = ack.conversation_id
        await bob.read(conversation_id, 2)
        (entry,) = [c async for c in bob.conversations()]
        assert (entry.unread, entry.mentions, entry.read_seq) == (1, 1, 2)
        await alice.request(RecallMessage(ack.msg_id), Changed)
        (entry,) = [c async for c in bob.conversations()]
        assert (entry.unread, entry.mentions) == (0, 0)
        receipts = await alice.api.call(ListReceipts(ack.msg_id), Receipts)
        assert receipts.read == []
        await bob.read(conversation_id, 3)
        receipts = await alice.api.call(ListReceipts(ack.msg_id), Receipts)
        assert [r.user_id for r in receipts.read] == [bob.user_id]
        asked = UpdateConversation(conversation_id, pinned=True, draft="Hel")
        state = await bob.api.call(asked, ConversationState)
        assert (state.pinned, state.draft, state.muted) == (True, "Hel", False)
        moved = await event(alice, lambda e: isinstance(e, ReadMoved) and e.seq == 3)
        assert moved == ReadMoved(conversation_id, bob.user_id, 3)
        updated = await event(bob, lambda e: isinstance(e, ConversationUpdated))
        assert isinstance(updated, ConversationUpdated)
        assert updated.state.draft == "Hel"
        cleared = await bob.clear(conversation_id)
        assert cleared.cleared_seq == 3
        history = await bob.api.call(GetHistory(conversation_id), History)
        assert history.messages == []
        assert len([m async for m in alice.messages(conversation_id)]) == 3


async def test_images_quotes_and_forwards(system: System) -> None:
    async with (
        await system.user("alice") as alice,
        await system.user("bob") as bob,
        await system.user("carol") as carol,
    ):
        content = msgspec.json.encode(
            ImageContent("f1", 9, "image/png", width=4, height=3)
        ).decode()
        image = SendMessage("i1", content, receiver_id=bob.user_id, msg_type=IMAGE)
        ack = await alice.send_message(image)
        reply = await bob.send(peer=alice.user_id, text="nice", reply_to=ack.msg_id)
        first = SendMessage("f1", forward_of=ack.msg_id, receiver_id=carol.user_id)
        forward = await bob.send_message(first)
        again = await carol.forward(forward.msg_id, peer=alice.user_id)
        for client, seq in ((alice, again.seq), (carol, forward.seq)):
            conversation = (again if client is alice else forward).conversation_id
            (message,) = [m async for m in client.messages(conversation, seq - 1) if m.seq == seq]
            assert (message.msg_type, message.content, message.file_id) == (IMAGE, content, "f1")
            assert message.forward is not None
            assert message.forward.msg_id == ack.msg_id, "the first origin"
            assert message.forward.sender_id == alice.user_id
        with pytest.raises(ApiError) as caught:
            await carol.edit(again.msg_id, "he never said so")
        assert caught.value.code == "forbidden"
        quoted = [m async for m in alice.messages(ack.conversation_id)]
        assert [m.reply_to for m in quoted] == [None, ack.msg_id]
        assert quoted[0].file_id == "f1"

        async def refused(client: Client, command: SendMessage) -> str:
            with pytest.raises(ApiError) as caught:
                await client.send_message(command)
            return f"{caught.value.code} {caught.value.field}"

        to = bob.user_id
        assert await refused(carol, SendMessage("x", forward_of=ack.msg_id, receiver_id=to)) == (
            "not_found forward_of"
        )
        assert await refused(
            carol, SendMessage("x", "x", reply_to=reply.msg_id, receiver_id=to)
        ) == ("not_found reply_to")
        assert await refused(carol, SendMessage("x", "{}", msg_type=IMAGE, receiver_id=to)) == (
            "bad_request content.file_id"
        )
        assert await refused(carol, SendMessage("x", receiver_id=to)) == "bad_request content"
        await alice.request(RecallMessage(ack.msg_id), Changed)
        assert await refused(
            bob, SendMessage("x", forward_of=ack.msg_id, receiver_id=carol.user_id)
        ) == ("not_found forward_of")
        assert await bob.send_message(first) == forward, "a repeat gets the first answer for ever"
        assert await refused(
            bob, SendMessage("f1", forward_of=forward.msg_id, receiver_id=carol.user_id)
        ) == ("conflict client_msg_id")


async def test_a_device_that_was_away_catches_up_with_messages_and_changes(system: System) -> None:
    positions = MemoryPositions()
    async with await system.user("alice") as alice:
        async with await system.user("bob", store=positions) as bob:
            first = await alice.send(peer=bob.user_id, text="first")
            await event(bob, lambda e: isinstance(e, MessageReceived))
            peer = bob.user_id
            await bob.read(first.conversation_id, 1)
        acks = [await alice.send(peer=peer, text=f"text {n}") for n in range(250)]
        await alice.request(EditMessage(first.msg_id, "first, edited"), Changed)
        for ack in acks[:220]:
            await alice.request(EditMessage(ack.msg_id, "edited"), Changed)
        await alice.request(RecallMessage(acks[-1].msg_id), Changed)
        async with await system.user("bob", store=positions) as bob:
            known: dict[int, Message] = {}
            async with asyncio.timeout(60):
                async for happened in bob.events():
                    if isinstance(happened, MessageReceived | MessageChanged):
                        known[happened.message.seq] = happened.message
                    if len(known) == 251 and known[1].content == "first, edited":
                        break
            there = [m async for m in alice.messages(first.conversation_id)]
            assert [known[m.seq] for m in there] == there
