"""A group's life on the whole system: who hears what, who sees what, and who may write."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from sqlalchemy import text

from clients.python.natterjack import Client, MessageReceived
from clients.python.natterjack.errors import ApiError
from schemas.groups import (
    CreateGroup,
    DissolveGroup,
    GetGroup,
    Group,
    GroupMember,
    InvitedMembers,
    InviteMembers,
    JoinedGroup,
    JoinGroup,
    KickMember,
    LeaveGroup,
    ListMembers,
    Members,
    MuteMember,
    SetRole,
    TransferGroup,
    UpdateGroup,
)
from schemas.messages import Changed, GetHistory, History, Message, PinMessage, RecallMessage
from schemas.types import Empty
from shared.adapters.sql import open_engine
from tests.e2e.conftest import Start
from tests.system import System


def said(messages: Sequence[Message]) -> list[str]:
    """What the messages say: of system messages their kind."""
    return [m.content if m.msg_type else json.loads(m.content)["kind"] for m in messages]


async def heard(client: Client, count: int) -> list[str]:
    """What the next `count` messages say that arrive at a client, his own included."""
    got: list[Message] = []
    async with asyncio.timeout(20):
        async for event in client.events():
            if isinstance(event, MessageReceived):
                got.append(event.message)
                if len(got) == count:
                    break
    return said(got)


async def history(client: Client, group_id: int) -> list[str]:
    page = await client.request(GetHistory(f"g_{group_id}", limit=200), History)
    return said(page.messages)


async def refused(code: str, call: object) -> None:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code == code


async def test_a_groups_life(both_stacks: Start) -> None:
    async with both_stacks() as system:
        clients = [await system.user(name) for name in ("alice", "bob", "bob", "carol", "eve")]
        async with clients[0], clients[1], clients[2], clients[3], clients[4]:
            await live(system, *clients)


async def live(
    system: System, alice: Client, bob: Client, bobs_other: Client, carol: Client, eve: Client
) -> None:
    group = await alice.request(CreateGroup("dinner", [bob.user_id]), Group)
    gid = group.group_id
    first = await alice.send(group=gid, text="hello")
    assert (first.conversation_id, first.seq) == (f"g_{gid}", 2)
    await bob.send(group=gid, text="hi")
    await refused("not_member", carol.send(group=gid, text="let me in"))
    assert (await carol.request(JoinGroup(gid), JoinedGroup)).status == "joined"
    await carol.send(group=gid, text="here I am")
    all_of_it = ["group.created", "hello", "hi", "group.joined", "here I am"]
    for client in (alice, bob, bobs_other):
        assert await heard(client, 5) == all_of_it
    # A new member begins with his own joining.
    assert await heard(carol, 2) == await history(carol, gid) == all_of_it[3:]
    assert await history(bob, gid) == all_of_it

    # Roles: an admin recalls and pins what others wrote, and may not do it any more when he is none.
    hi = (await bob.request(GetHistory(f"g_{gid}", after_seq=2, limit=1), History)).messages[0]
    await refused("forbidden", carol.request(PinMessage(hi.msg_id), Changed))
    await alice.request(SetRole(gid, carol.user_id, 1), GroupMember)
    await carol.request(RecallMessage(hi.msg_id), Changed)
    await alice.request(SetRole(gid, carol.user_id, 0), GroupMember)
    await refused("forbidden", carol.request(RecallMessage(first.msg_id), Changed))
    assert (await history(bob, gid))[:3] == ["group.created", "hello", ""]

    # Mute, until it is lifted.
    mute = MuteMember(gid, bob.user_id, 2**53 - 1)
    await alice.request(mute, GroupMember)
    await refused("muted", bob.send(group=gid, text="mmm"))
    await alice.request(MuteMember(gid, bob.user_id, 0), GroupMember)
    await bob.send(group=gid, text="free")

    # Who was kicked gets nothing from then on, and sees what was until then.
    await alice.request(KickMember(gid, carol.user_id), Empty)
    await alice.send(group=gid, text="carol is gone")
    await refused("not_member", carol.send(group=gid, text="why"))
    seen = await history(carol, gid)
    assert seen[-2:] == ["free", "group.kicked"]
    assert "carol is gone" not in seen
    assert (await history(alice, gid))[-1] == "carol is gone"

    # The owner hands over before he leaves; then the new one dissolves it.
    await refused("forbidden", alice.request(LeaveGroup(gid), Empty))
    handed = await alice.request(TransferGroup(gid, bob.user_id), Group)
    assert handed.owner_id == bob.user_id
    await alice.request(LeaveGroup(gid), Empty)
    await refused("not_member", alice.send(group=gid, text="again"))
    await bob.request(InviteMembers(gid, [eve.user_id]), InvitedMembers)
    await eve.send(group=gid, text="what a group")
    members = await bob.request(ListMembers(gid), Members)
    assert {m.user_id: m.role for m in members.members} == {bob.user_id: 2, eve.user_id: 0}
    await bob.request(DissolveGroup(gid), Empty)
    await refused("not_found", eve.send(group=gid, text="anybody?"))
    await refused("not_found", bob.request(GetGroup(gid), Group))
    assert (await history(eve, gid)) == ["group.invited", "what a group", "group.dissolved"]

    page = await bob.request(GetHistory(f"g_{gid}", limit=200), History)
    assert [m.seq for m in page.messages] == list(range(1, page.max_seq + 1))


async def test_a_change_whose_process_was_killed_comes_through(system: System) -> None:
    async with await system.user("alice") as alice, await system.user("bob") as bob:
        gid = (await alice.request(CreateGroup("g", []), Group)).group_id
        joins = [asyncio.create_task(bob.request(JoinGroup(gid), JoinedGroup))]
        system.kill("functions")
        await asyncio.gather(*joins)  # the client repeats what got no answer
        await bob.send(group=gid, text="in")
        assert (await history(bob, gid))[-1] == "in"
        engine = open_engine(system.db_url)

        async def left() -> int:
            async with engine.connect() as connection:
                found = await connection.execute(text("SELECT COUNT(*) FROM group_outbox"))
                return int(found.scalar() or 0)

        async with asyncio.timeout(30):
            while await left():  # the answer does not wait until this is noted
                await asyncio.sleep(0.05)
        await engine.dispose()
        assert (await history(alice, gid)).count("group.joined") == 1


async def test_the_calls_of_the_client(system: System) -> None:
    names = ("alice", "bob", "carol", "eve")
    alice, bob, carol, eve = [await system.user(name) for name in names]
    async with alice, bob, carol, eve:
        group = await alice.groups.create("dinner", [bob.user_id], join="approval", max_members=3)
        gid = group.group_id
        assert (await carol.groups.join(gid, "I am Carol")).status == "applied"
        assert (await eve.groups.join(gid)).status == "applied"
        waiting = [a async for a in alice.groups.applications(gid)]
        assert [(a.user_id, a.greeting) for a in waiting] == [
            (carol.user_id, "I am Carol"),
            (eve.user_id, ""),
        ]
        await alice.groups.set_admin(gid, bob.user_id)
        accepted = await bob.groups.decide(gid, carol.user_id, accept=True)
        assert accepted.status == "accepted"
        await refused("conflict", bob.groups.decide(gid, eve.user_id, accept=True))
        assert (await bob.groups.decide(gid, eve.user_id, accept=False)).status == "rejected"
        await carol.send(group=gid, text="thanks")
        await carol.groups.set_nickname(gid, carol.user_id, "C")
        members = {m.user_id: (m.role, m.nickname) async for m in carol.groups.members(gid)}
        assert members == {
            alice.user_id: (2, None),
            bob.user_id: (1, None),
            carol.user_id: (0, "C"),
        }
        await alice.groups.mute_all(gid)
        await refused("muted", carol.send(group=gid, text="may I?"))
        await bob.send(group=gid, text="I may")
        assert (await alice.groups.mute_all(gid, on=False)).mute_all is False
        await carol.send(group=gid, text="may I?")
        renamed = await alice.groups.update(UpdateGroup(gid, name="lunch", max_members=4))
        assert (renamed.name, renamed.max_members) == ("lunch", 4)
        assert await alice.groups.invite(gid, [eve.user_id, bob.user_id]) == [eve.user_id]
        assert [g.name async for g in eve.groups.mine()] == ["lunch"]
        await alice.groups.kick(gid, eve.user_id)
        await carol.groups.leave(gid)
        await carol.groups.leave(gid)
        await alice.groups.transfer(gid, bob.user_id)
        await bob.groups.dissolve(gid)
        assert [g async for g in alice.groups.mine()] == []
        await refused("not_found", alice.groups.get(gid))
