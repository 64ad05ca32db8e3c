"""Groups on SQLite and MariaDB: what each command does, and to whom it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from functions.groups.departures import Departures
from functions.profile.store import SqlProfiles
from schemas.groups import MOST_GROUPS
from shared import tables
from shared.errors import (
    AppError,
    BadRequest,
    Blocked,
    Conflict,
    Forbidden,
    NotFound,
    NotMember,
    Unauthenticated,
    UnknownOutcome,
)
from shared.log import NotAppendedError
from tests.groups import World, running
from tests.servers import RedisServer


@pytest.fixture
async def world(db_url: str, redis_server: RedisServer) -> AsyncIterator[World]:
    async with running(db_url, redis_server.url) as world:
        await world.add_users(9)
        yield world


async def outbox(world: World) -> int:
    async with world.resources.engine().connect() as connection:
        found = await connection.execute(select(func.count(tables.group_outbox.c.id)))
        return int(found.scalar() or 0)


async def test_create(world: World) -> None:
    group = await world.call(
        1,
        "create",
        name="Friday dinner",
        member_ids=[3, 2, 1, 3],
        announcement="At eight",
        avatar="https://a.example/b.png",
    )
    group_id = group["group_id"]
    assert group == {
        "group_id": group_id,
        "name": "Friday dinner",
        "owner_id": 1,
        "max_members": 500,
        "member_count": 3,
        "join": "open",
        "past": "hidden",
        "version": 1,
        "members_version": 2,
        "created_at": world.now,
        "avatar": "https://a.example/b.png",
        "announcement": "At eight",
        "role": 2,
        "joined_at": world.now,
    }
    assert await world.call(1, "get", id=group_id) == group
    assert await world.members(group_id) == {1: 2, 2: 0, 3: 0}
    (record,) = world.records
    assert record.conversation_id == f"g_{group_id}"
    assert (record.user_id, record.joined, record.left) == (1, [1, 3, 2], [])
    assert (record.members_version, record.sees_all) == (2, False)
    content = {"kind": "group.created", "name": "Friday dinner", "user_ids": [3, 2]}
    assert json.loads(record.content) == content
    assert await outbox(world) == 0
    joined = {"group_id": group_id, "by": 1}
    assert world.pushes == [
        ("user.1", "group.joined", joined | {"members_version": 1}),
        ("user.3", "group.joined", joined | {"members_version": 2}),
        ("user.2", "group.joined", joined | {"members_version": 2}),
        (
            f"group.{group_id}",
            "group.members",
            {"group_id": group_id, "members_version": 2, "joined": [3, 2]},
        ),
    ]


async def test_a_group_is_made_with_all_its_members_or_not_at_all(world: World) -> None:
    with pytest.raises(NotFound, match="no user 99"):
        await world.create(1, 2, 99)
    with pytest.raises(Conflict, match="full"):
        await world.create(1, 2, 3, max_members=2)
    with pytest.raises(Unauthenticated):
        await world.create(99)
    with pytest.raises(BadRequest):
        await world.call(1, "create", name="  ")
    with pytest.raises(BadRequest):
        await world.create(1, max_members=10_001)
    async with world.resources.engine().begin() as connection:
        await connection.execute(
            insert(tables.friendship).values(
                user_id=2,
                friend_id=1,
                status=tables.BLOCKED,
                created_at="2026-01-01 00:00:00.000",
                version=1,
            )
        )
    with pytest.raises(Blocked):
        await world.create(1, 2)
    assert (await world.call(1, "list"))["group_ids"] == []
    assert not world.records
    assert not world.pushes


async def test_update(world: World) -> None:
    group_id = await world.create(1, 2)
    before = await world.call(1, "get", id=group_id)
    changes = {
        "name": "New",
        "avatar": "https://a.example/c.png",
        "announcement": "Ä\nb",
        "join": "approval",
        "past": "visible",
        "max_members": 7,
    }
    changed = await world.call(1, "update", id=group_id, **changes)
    assert changed == before | changes | {"version": before["version"] + 1}
    assert world.pushes[-1][:2] == (f"group.{group_id}", "group.updated")
    assert "role" not in world.pushes[-1][2]["group"]
    assert json.loads(world.records[-1].content) == {"kind": "group.updated"} | changes
    assert world.records[-1].sees_all
    told = len(world.pushes), len(world.records)
    assert await world.call(1, "update", id=group_id, **changes) == changed
    assert await world.call(1, "update", id=group_id) == changed
    assert (len(world.pushes), len(world.records)) == told
    assert "avatar" not in await world.call(1, "update", id=group_id, avatar=None)
    with pytest.raises(Conflict):
        await world.call(1, "update", id=group_id, max_members=1)
    with pytest.raises(BadRequest):
        await world.call(1, "update", id=group_id, avatar="javascript:alert(1)")


async def test_join_leave_and_join_again(world: World) -> None:
    group_id = await world.create(1)
    joined = {"group_id": group_id, "status": "joined"}
    assert await world.call(2, "join", id=group_id) == joined
    records = len(world.records)
    assert await world.call(2, "join", id=group_id) == joined
    assert len(world.records) == records
    assert await world.call(2, "leave", id=group_id) == {}
    with pytest.raises(NotMember):
        await world.call(2, "leave", id=group_id)
    assert await world.call(2, "join", id=group_id) == joined
    versions = [record.members_version for record in world.records]
    assert versions == [1, 2, 3, 4]
    assert [(r.joined, r.left) for r in world.records[1:]] == [([2], []), ([], [2]), ([2], [])]
    left = {"group_id": group_id, "members_version": 3}
    assert ("user.2", "group.left", left | {"reason": "left"}) in world.pushes
    assert (f"group.{group_id}", "group.members", left | {"left": [2]}) in world.pushes
    assert (await world.row(group_id))["member_count"] == 2


async def test_an_owner_hands_over_before_he_leaves(world: World) -> None:
    group_id = await world.create(1, 2)
    with pytest.raises(Forbidden):
        await world.call(1, "leave", id=group_id)
    group = await world.call(1, "transfer", id=group_id, user_id=2)
    assert (group["owner_id"], group["role"]) == (2, 1)
    assert await world.members(group_id) == {1: 1, 2: 2}
    assert await world.call(1, "leave", id=group_id) == {}
    assert await world.members(group_id) == {2: 2}


async def test_applications(world: World) -> None:
    group_id = await world.create(1, 2, 3, join="approval")
    await world.call(1, "role", id=group_id, uid=2, role=1)
    for applicant in (4, 5, 6):
        world.now += 1
        applied = await world.call(applicant, "join", id=group_id, greeting=f"I am {applicant}")
        assert applied == {"group_id": group_id, "status": "applied"}
    told = [subject for subject, kind, _ in world.pushes if kind == "group.application"]
    assert told[:3] == ["user.4", "user.1", "user.2"]
    pushes = len(world.pushes)
    await world.call(4, "join", id=group_id, greeting="I am 4")
    assert len(world.pushes) == pushes, "the same again is nothing new"
    page = await world.call(2, "applications", id=group_id, limit=2)
    assert [a["user_id"] for a in page["applications"]] == [4, 5]
    rest = await world.call(1, "applications", id=group_id, cursor=page["next"])
    assert [a["greeting"] for a in rest["applications"]] == ["I am 6"]
    assert rest["next"] is None
    for _ in range(2):
        accepted = await world.call(2, "accept", id=group_id, uid=4)
        assert accepted["status"] == "accepted"
        rejected = await world.call(1, "reject", id=group_id, uid=5)
        assert rejected["status"] == "rejected"
    for command in ("accept", "reject"):
        with pytest.raises(NotFound):
            await world.call(1, command, id=group_id, uid=7)
    with pytest.raises(NotFound):
        await world.call(1, "accept", id=group_id, uid=5)
    assert await world.members(group_id) == {1: 2, 2: 1, 3: 0, 4: 0}
    await world.call(5, "join", id=group_id)  # may ask again
    await world.call(1, "invite", id=group_id, user_ids=[6])  # his application is done then
    left = await world.call(1, "applications", id=group_id)
    assert [a["user_id"] for a in left["applications"]] == [5]
    with pytest.raises(Forbidden):
        await world.call(3, "applications", id=group_id)
    with pytest.raises(NotMember):
        await world.call(5, "applications", id=group_id)


async def test_a_group_by_invitation(world: World) -> None:
    group_id = await world.create(1, 2, join="invite")
    with pytest.raises(Forbidden):
        await world.call(3, "join", id=group_id)
    with pytest.raises(NotMember):
        await world.call(3, "get", id=group_id)
    with pytest.raises(Forbidden):
        await world.call(2, "invite", id=group_id, user_ids=[3])
    invited = await world.call(1, "invite", id=group_id, user_ids=[3, 2, 4])
    assert invited == {"group_id": group_id, "user_ids": [3, 4]}
    again = await world.call(1, "invite", id=group_id, user_ids=[3, 2, 4])
    assert again == {"group_id": group_id, "user_ids": []}
    with pytest.raises(NotFound):
        await world.call(1, "invite", id=group_id, user_ids=[5, 99])
    assert sorted(await world.members(group_id)) == [1, 2, 3, 4]


async def test_a_stranger_sees_what_he_needs_to_join(world: World) -> None:
    group_id = await world.create(1, 2, announcement="between us", join="approval")
    seen = await world.call(3, "get", id=group_id)
    assert seen["name"] == "g"
    assert {"role", "announcement", "joined_at"}.isdisjoint(seen)
    with pytest.raises(NotMember):
        await world.call(3, "members", id=group_id)
    with pytest.raises(NotFound):
        await world.call(3, "get", id=99)


async def test_kick_role_mute_and_names(world: World) -> None:
    group_id = await world.create(1, 2, 3)
    assert (await world.call(1, "role", id=group_id, uid=2, role=1))["role"] == 1
    until = world.now + 60_000
    muted = await world.call(2, "mute", id=group_id, uid=3, until=until)
    assert muted == {"user_id": 3, "role": 0, "joined_at": world.now, "muted_until": until}
    assert world.pushes[-1][1] == "group.member"
    assert world.pushes[-1][2]["member"] == muted
    for_ever = await world.call(2, "mute", id=group_id, uid=3, until=2**53 - 1)
    assert for_ever["muted_until"] == 253_402_300_799_999
    assert "muted_until" not in await world.call(2, "mute", id=group_id, uid=3, until=0)
    assert "muted_until" not in await world.call(2, "mute", id=group_id, uid=3, until=1)
    records = len(world.records)
    named = await world.call(3, "nickname", id=group_id, uid=3, nickname="Ängström")
    assert named["nickname"] == "Ängström"
    assert (await world.call(3, "get", id=group_id))["nickname"] == "Ängström"
    assert "nickname" not in await world.call(2, "nickname", id=group_id, uid=3, nickname=None)
    assert len(world.records) == records, "names are no news"
    assert await world.call(2, "kick", id=group_id, uid=3) == {}
    with pytest.raises(NotFound):
        await world.call(2, "kick", id=group_id, uid=3)
    assert world.records[-1].left == [3]
    assert ("user.3", "group.left") in [push[:2] for push in world.pushes]
    assert await world.members(group_id) == {1: 2, 2: 1}


async def test_dissolve(world: World) -> None:
    group_id = await world.create(1, 2, 3)
    for _ in range(2):
        assert await world.call(1, "dissolve", id=group_id) == {}
    assert sorted(world.records[-1].left) == [1, 2, 3]
    assert len(world.records) == 2
    reasons = [data["reason"] for _, kind, data in world.pushes if kind == "group.left"]
    assert reasons == ["dissolved"] * 3
    assert await world.members(group_id) == {}
    for user, command, data in (
        (2, "dissolve", {}),
        (1, "get", {}),
        (2, "join", {}),
        (1, "invite", {"user_ids": [4]}),
        (1, "members", {}),
    ):
        with pytest.raises(NotFound):
            await world.call(user, command, id=group_id, **data)
    assert (await world.call(1, "list"))["group_ids"] == []
    among = await world.call(0, "among", group_id=group_id, user_ids=[1, 2])
    assert among == {"members_version": 3, "user_ids": []}


async def test_lists(world: World) -> None:
    ids = [await world.create(1 + i % 2, 3) for i in range(5)]
    pages: list[Any] = []
    cursor = None
    while True:
        page = await world.call(3, "list", limit=2, cursor=cursor)
        pages += [group["group_id"] for group in page["groups"]]
        assert page["group_ids"] == ([] if cursor else ids)
        cursor = page["next"]
        if cursor is None:
            break
    assert pages == ids
    as_of = page["as_of"]
    world.now += 200_000
    await world.call(1, "update", id=ids[2], name="changed")
    changed = await world.call(3, "list", changed_after=as_of + 100_000)
    assert [group["group_id"] for group in changed["groups"]] == [ids[2]]
    assert changed["group_ids"] == ids
    for bad in ("x", "-1", "9" * 30, "1.2"):
        with pytest.raises(BadRequest):
            await world.call(3, "list", cursor=bad)


async def test_pages_of_members(world: World) -> None:
    group_id = await world.create(5, 1, 2, 3, 4, 6, 7)
    found: list[int] = []
    cursor = None
    while True:
        page = await world.call(3, "members", id=group_id, limit=3, cursor=cursor)
        found += [member["user_id"] for member in page["members"]]
        assert page["members_version"] == 2
        cursor = page["next"]
        if cursor is None:
            break
    assert found == [1, 2, 3, 4, 5, 6, 7]


async def test_what_the_edge_asks(world: World) -> None:
    first, second = await world.create(1, 2), await world.create(2)
    answer = await world.call(0, "memberships", user_ids=[1, 2, 3])
    assert answer["memberships"] == [
        {"user_id": 1, "groups": [[first, 2]]},
        {"user_id": 2, "groups": [[first, 2], [second, 1]]},
    ]
    among = await world.call(0, "among", group_id=first, user_ids=[3, 2, 1])
    assert among["members_version"] == 2
    assert sorted(among["user_ids"]) == [1, 2]
    nobody = await world.call(0, "among", group_id=99, user_ids=[1])
    assert nobody == {"members_version": 0, "user_ids": []}


async def test_nobody_is_in_more_groups_than_one_answer_holds(world: World) -> None:
    row = {"role": 0, "joined_at": "2026-01-01 00:00:00.000", "joined_ms": 0, "user_id": 4}
    async with world.resources.engine().begin() as connection:
        rows = [row | {"group_id": 10_000 + i} for i in range(MOST_GROUPS)]
        await connection.execute(insert(tables.group_member), rows)
    group_id = await world.create(1)
    with pytest.raises(Conflict):
        await world.call(4, "join", id=group_id)


# --- many at once


async def outcomes(*calls: Any) -> list[str]:
    """ "ok" or the error's code of each call, all made at once."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        assert isinstance(result, dict | AppError), result
    return [r.code if isinstance(r, AppError) else "ok" for r in results]


async def test_two_hundred_want_a_hundred_places(world: World) -> None:
    await world.add_users(200)
    group_id = await world.create(1, max_members=101)
    joins = await outcomes(*(world.call(10 + i, "join", id=group_id) for i in range(200)))
    assert (joins.count("ok"), joins.count("conflict")) == (100, 100)
    assert len(await world.members(group_id)) == 101
    row = await world.row(group_id)
    assert (row["member_count"], row["members_version"], row["version"]) == (101, 101, 101)
    # The log has them in the order in which they came in.
    assert [r.members_version for r in world.records] == list(range(1, 102))


async def test_joining_twice_at_once_is_once(world: World) -> None:
    group_id = await world.create(1)
    assert await outcomes(*(world.call(2, "join", id=group_id) for _ in range(10))) == ["ok"] * 10
    assert (await world.row(group_id))["member_count"] == 2
    assert [r.joined for r in world.records] == [[1], [2]]


async def test_two_admins_kick_the_same_and_each_other(world: World) -> None:
    group_id = await world.create(1, 2, 3, 4)
    for admin in (2, 3):
        await world.call(1, "role", id=group_id, uid=admin, role=1)
    both = (world.call(admin, "kick", id=group_id, uid=4) for admin in (2, 3))
    assert sorted(await outcomes(*both)) == ["not_found", "ok"]
    # The owner takes an admin's role while he acts: he acts before it or not at all.
    await world.call(1, "invite", id=group_id, user_ids=[4])
    kick, demote = await outcomes(
        world.call(2, "kick", id=group_id, uid=4),
        world.call(1, "role", id=group_id, uid=2, role=0),
    )
    assert demote == "ok"
    assert (kick == "ok") == (4 not in await world.members(group_id))
    assert kick in ("ok", "forbidden")


async def test_transfer_against_kick_and_leave(world: World) -> None:
    """Whoever comes first: there is one owner, and he is a member."""
    for _ in range(5):
        group_id = await world.create(1, 2, 3)
        await world.call(1, "role", id=group_id, uid=3, role=1)
        transfer, kick, leave = await outcomes(
            world.call(1, "transfer", id=group_id, user_id=2),
            world.call(3, "kick", id=group_id, uid=2),
            world.call(2, "leave", id=group_id),
        )
        members = await world.members(group_id)
        owners = [user_id for user_id, role in members.items() if role == 2]
        assert owners == [(await world.row(group_id))["owner_id"]]
        assert [transfer, kick, leave].count("ok") == 1
        assert owners == ([2] if transfer == "ok" else [1])


async def test_dissolve_against_joins(world: World) -> None:
    await world.add_users(20)
    group_id = await world.create(1)
    *joins, dissolve = await outcomes(
        *(world.call(10 + i, "join", id=group_id) for i in range(20)),
        world.call(1, "dissolve", id=group_id),
    )
    assert dissolve == "ok"
    assert set(joins) <= {"ok", "not_found"}
    assert await world.members(group_id) == {}
    assert len(world.records[-1].left) == 1 + joins.count("ok")
    assert (await world.row(group_id))["member_count"] == 0


async def test_ten_thousand_members(world: World) -> None:
    await world.add_users(10_000)
    group_id = await world.create(1, max_members=10_000)
    for start in range(10, 10_010, 500):
        users = list(range(start, min(start + 500, 10_009)))
        assert (await world.call(1, "invite", id=group_id, user_ids=users))["user_ids"] == users
    assert (await world.row(group_id))["member_count"] == 10_000
    with pytest.raises(Conflict, match="full"):
        await world.call(2, "join", id=group_id)
    await world.call(1, "dissolve", id=group_id)
    assert len(world.records[-1].left) == 10_000
    assert await world.members(group_id) == {}


# --- crashes in between


class Refusing:
    """A log that takes nothing."""

    def append(self, *_: object, **__: object) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(NotAppendedError("away"))
        return future


async def test_what_did_not_reach_the_log_is_brought_there_in_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_id = await world.create(1)
    box = world.deps.announcer._outbox
    with monkeypatch.context() as patch:
        patch.setattr(box, "_writer", Refusing())
        for user_id in (2, 3):
            with pytest.raises(UnknownOutcome):
                await world.call(user_id, "join", id=group_id)
        # A repeat finds the work done, and does not say so before it is in the log.
        with pytest.raises(UnknownOutcome):
            await world.call(2, "join", id=group_id)
    assert [r.joined for r in world.records] == [[1]]
    await box.sweep()  # not old enough: its process may be about to append it
    assert await outbox(world) == 2
    await box.sweep(older_than_ms=-60_000)
    assert [r.joined for r in world.records] == [[1], [2], [3]]
    assert await outbox(world) == 0


async def test_the_next_change_brings_those_before_it_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_id = await world.create(1)
    with monkeypatch.context() as patch:
        patch.setattr(world.deps.announcer._outbox, "_writer", Refusing())
        with pytest.raises(UnknownOutcome):
            await world.call(2, "join", id=group_id)
    await world.call(1, "kick", id=group_id, uid=2)
    assert [(r.joined, r.left) for r in world.records] == [([1], []), ([2], []), ([], [2])]


async def test_the_sweep_forgets_rights_that_a_crash_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_id = await world.create(1, 2)
    await world.gate.group(2, group_id)
    with monkeypatch.context() as patch:

        async def crash(*_: object) -> None:
            raise UnknownOutcome("killed")

        patch.setattr(world.deps.announcer._copies, "forget", crash)
        with pytest.raises(UnknownOutcome):
            await world.call(1, "kick", id=group_id, uid=2)
    await world.gate.group(2, group_id)  # nobody was told that it is otherwise
    await world.deps.announcer._outbox.sweep(older_than_ms=-60_000)
    with pytest.raises(NotMember):
        await world.gate.group(2, group_id)


def departures(world: World) -> Departures:
    return Departures(world.resources.engine(), world.deps.changes, world.deps.announcer)


async def test_a_deleted_account_leaves_its_groups(world: World) -> None:
    theirs, own = await world.create(1, 2, 3), await world.create(2, 3)
    profiles = SqlProfiles(world.resources.engine(), world.resources.redis())
    with pytest.raises(Conflict):
        await profiles.delete(2, "", world.now)
    assert await profiles.me(2) is not None, "refused, and nothing changed"
    await world.call(2, "transfer", id=own, user_id=3)
    await world.gate.group(2, theirs)
    assert await profiles.delete(2, "", world.now) == []
    before = len(world.records)
    await departures(world).sweep()
    assert set(await world.members(theirs)) == {1, 3}
    assert set(await world.members(own)) == {3}
    assert [(r.conversation_id, r.left) for r in world.records[before:]] == [
        (f"g_{theirs}", [2]),
        (f"g_{own}", [2]),
    ]
    assert (await world.row(theirs))["member_count"] == 2
    with pytest.raises(AppError):
        await world.gate.group(2, theirs)
    await departures(world).sweep()
    assert len(world.records) == before + 2


async def test_a_group_handed_over_to_somebody_who_goes_is_dissolved(world: World) -> None:
    group_id = await world.create(2, 3)
    async with world.resources.engine().begin() as connection:
        await connection.execute(insert(tables.departure).values(user_id=2))
    await departures(world).sweep()
    assert await world.members(group_id) == {}
    assert sorted(world.records[-1].left) == [2, 3]
    with pytest.raises(NotFound):
        await world.call(3, "get", id=group_id)
