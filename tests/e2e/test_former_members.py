"""What somebody who has left a group still sees of it: what was there then, and nothing that was written later."""

import asyncio

import pytest

from clients.python.natterjack import Client
from clients.python.natterjack.errors import ApiError
from clients.python.natterjack.ids import uuid7
from schemas.conversations import (
    ClearConversation,
    Conversations,
    ConversationState,
    Edits,
    ListConversations,
    ListEdits,
    ListPins,
    Pins,
)
from schemas.messages import (
    Changed,
    EditMessage,
    GetHistory,
    History,
    Message,
    MessageAck,
    PinMessage,
    Position,
    RecallMessage,
    SendMessage,
    Sync,
    Synced,
)
from schemas.search import FoundMessages, SearchMessages
from tests.edge import connect
from tests.system import System


async def text_of(client: Client, conversation: str, seq: int) -> tuple[str, bool]:
    """A message's content, and whether it says that it was edited."""
    page = await client.request(GetHistory(conversation, before_seq=seq + 1, limit=1), History)
    (message,) = page.messages
    return message.content, message.edited_at is not None


async def found(client: Client, words: str) -> list[str]:
    page = await client.request(SearchMessages(words), FoundMessages)
    return [message.content for message in page.messages]


async def test_what_is_edited_later_is_not_for_one_who_has_left(system: System) -> None:
    names = ("alice", "bob", "carol")
    alice, bob, carol = [await system.user(name) for name in names]
    async with alice, bob, carol:
        group = await alice.groups.create("g", [bob.user_id, carol.user_id])
        gid, name = group.group_id, f"g_{group.group_id}"
        first = await alice.send(group=gid, text="draft")
        second = await alice.send(group=gid, text="plain")
        await alice.request(EditMessage(first.msg_id, "before"), Changed)
        await alice.request(PinMessage(first.msg_id), Changed)
        await alice.groups.kick(gid, bob.user_id)
        await alice.send(group=gid, text="later")
        for content in ("after", "secret"):
            await alice.request(EditMessage(first.msg_id, content), Changed)
        await alice.request(EditMessage(second.msg_id, "secret too"), Changed)

        assert await text_of(carol, name, first.seq) == ("secret", True)
        assert await text_of(bob, name, first.seq) == ("before", True)
        assert await text_of(bob, name, second.seq) == ("plain", False)
        synced = await bob.request(Sync([Position(name, after_seq=1, after_rev=0)]), Synced)
        (page,) = synced.conversations
        assert not any("secret" in m.content for m in (*page.messages, *page.changes))
        assert {m.content for m in page.changes} == {"before", "plain"}
        edits = await bob.request(ListEdits(first.msg_id), Edits)
        assert [edit.content for edit in edits.edits] == ["draft"]
        assert len((await carol.request(ListEdits(first.msg_id), Edits)).edits) == 3
        pins = await bob.request(ListPins(name), Pins)
        assert [pin.message.content for pin in pins.pins] == ["before"]

        async with asyncio.timeout(20):
            while len(await found(carol, "secret")) < 2:  # the index follows
                await asyncio.sleep(0.05)
        assert await found(bob, "secret") == []
        forward = SendMessage(uuid7(), receiver_id=carol.user_id, forward_of=first.msg_id)
        with pytest.raises(ApiError) as refused:
            await bob.request(forward, MessageAck)
        assert refused.value.code == "not_found"

        # A recall is final for him, too.
        await alice.request(RecallMessage(first.msg_id), Changed)
        assert await text_of(bob, name, first.seq) == ("", False)


async def test_what_one_has_left_does_not_count(system: System) -> None:
    alice, bob = [await system.user(name) for name in ("alice", "bob")]
    async with alice, bob:
        group = await alice.groups.create("g", [bob.user_id])
        gid, name = group.group_id, f"g_{group.group_id}"
        await alice.send(group=gid, text="one")

        async def listed() -> tuple[int, int, Message | None]:
            (entry,) = (await bob.request(ListConversations(), Conversations)).conversations
            return entry.unread, entry.max_seq, entry.last_message

        assert (await listed())[:2] == (1, 2)
        await bob.groups.leave(gid)
        for _ in range(3):
            await alice.send(group=gid, text="more")
        unread, newest, last = await listed()
        assert (unread, newest) == (0, 3)
        assert last is not None
        assert last.seq == 3
        cleared = await bob.request(ClearConversation(name), ConversationState)
        assert cleared.cleared_seq == 3


async def test_what_is_hidden_from_a_new_member_is_not_there_for_him(system: System) -> None:
    names = ("alice", "bob")
    alice, bob = [await system.user(name) for name in names]
    async with alice, bob:
        gid = (await alice.groups.create("g", [])).group_id
        old = await alice.send(group=gid, text="before him")
        await bob.groups.join(gid)
        new = await alice.send(group=gid, text="with him")
        await bob.react(new.msg_id, "👍")
        for change in (bob.react(old.msg_id, "👍"), bob.react(old.msg_id, "👍", remove=True)):
            with pytest.raises(ApiError) as caught:
                await change
            assert caught.value.code == "not_found"
        await bob.request(ClearConversation(f"g_{gid}"), ConversationState)
        with pytest.raises(ApiError) as caught:
            await bob.react(new.msg_id, "🎉")
        assert caught.value.code == "not_found"


async def test_an_edit_does_not_show_a_new_member_what_is_hidden_from_him(system: System) -> None:
    names = ("alice", "bob", "carol")
    alice, bob, carol = [await system.user(name) for name in names]
    async with alice, bob, carol:
        gid = (await alice.groups.create("g", [bob.user_id])).group_id
        old = await alice.send(group=gid, text="between us")
        await carol.groups.join(gid)
        async with connect(system.url, await carol._keeper.access_token()) as raw:
            await alice.edit(old.msg_id, "still between us")
            await alice.edit((await alice.send(group=gid, text="to all")).msg_id, "for all")
            frames = [await raw.next()]
            while frames[-1]["type"] != "edit":
                frames.append(await raw.next())
        assert "message" in [frame["type"] for frame in frames], "the first edit was pushed"
        assert "between us" not in repr(frames)
        assert await text_of(bob, f"g_{gid}", old.seq) == ("still between us", True)
