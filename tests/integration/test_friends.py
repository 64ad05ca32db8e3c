"""Friends, applications and blocks: on SQLite and MariaDB."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select

from shared.applications import LIFE_MS
from shared.errors import AppError, BadRequest, Blocked, Conflict, NotFound, UnknownOutcome
from shared.gate import Gate, pair_key
from shared.tables import friendship
from tests.inprocess import Service
from tests.servers import RedisServer


async def people(service: Service, *names: str) -> list[int]:
    return [await service.register(name) for name in names]


async def apply(service: Service, user: int, peer: int, greeting: str = "") -> Any:
    return await service.call("friend.apply", {"user_id": peer, "greeting": greeting}, user=user)


async def accept(service: Service, user: int, application: Any) -> Any:
    return await service.call("friend.accept", {"id": application["id"]}, user=user)


async def befriend(service: Service, user: int, peer: int) -> None:
    await accept(service, peer, await apply(service, user, peer))


async def friends(service: Service, user: int, **data: Any) -> list[int]:
    answer = await service.call("friend.list", data, user=user)
    return sorted(f["user_id"] for f in answer["friends"])


async def applications(service: Service, user: int, **data: Any) -> list[tuple[int, int, str]]:
    answer = await service.call("friend.applications", data, user=user)
    return [(a["from_user_id"], a["to_user_id"], a["status"]) for a in answer["applications"]]


async def block(service: Service, user: int, peer: int) -> None:
    await service.call("friend.block", {"id": peer}, user=user)


async def unblock(service: Service, user: int, peer: int) -> None:
    await service.call("friend.unblock", {"id": peer}, user=user)


def told(service: Service) -> list[tuple[int, str]]:
    return sorted((user, kind) for user, kind, _ in service.take_pushed())


async def test_apply_and_accept(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    application = await apply(service, a, b, "it's me")
    assert application == {
        "id": application["id"],
        "from_user_id": a,
        "to_user_id": b,
        "greeting": "it's me",
        "status": "pending",
        "created_at": service.now,
        "expires_at": service.now + LIFE_MS,
    }
    pushed = service.take_pushed()
    assert [(user, kind) for user, kind, _ in pushed] == [
        (a, "friend.applied"),
        (b, "friend.applied"),
    ]
    assert all(data == {"application": application} for _, _, data in pushed)
    assert await friends(service, a) == await friends(service, b) == []
    service.now += 1000
    friend = await accept(service, b, application)
    assert friend == {"user_id": a, "username": "alice", "nickname": "alice", "since": service.now}
    pushed = service.take_pushed()
    assert sorted((user, kind, data["friend"]["user_id"]) for user, kind, data in pushed) == [
        (a, "friend.accepted", b),
        (b, "friend.accepted", a),
    ]
    assert await friends(service, a) == [b]
    assert await friends(service, b) == [a]
    assert await applications(service, a) == await applications(service, b) == [(a, b, "accepted")]
    # Repeats of both are the same, and news to nobody.
    assert await accept(service, b, application) == friend
    assert (await apply(service, a, b))["status"] == "accepted"
    with pytest.raises(Conflict):
        await apply(service, b, a)
    assert told(service) == []


async def test_a_repeat_is_the_same_application(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    first = await apply(service, a, b, "hi")
    assert len(told(service)) == 2
    service.now += 1
    assert await apply(service, a, b, "hi") == first
    assert told(service) == []
    assert await apply(service, a, b, "hello") == first | {"greeting": "hello"}
    assert told(service) == [(a, "friend.applied"), (b, "friend.applied")]
    assert await applications(service, b) == [(a, b, "pending")]


async def test_crossing_applications_make_a_friendship(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    await apply(service, a, b)
    assert (await apply(service, b, a))["status"] == "accepted"
    assert await friends(service, a) == [b]
    assert await friends(service, b) == [a]
    assert {s for _, _, s in await applications(service, a)} == {"accepted"}


async def test_crossing_at_the_same_moment(service: Service) -> None:
    ids = await people(service, *(f"u{i}" for i in range(8)))
    pairs = [(a, b) for a in ids for b in ids if a < b]
    both = [way for a, b in pairs for way in ((a, b), (b, a))]
    random.Random(7).shuffle(both)
    answers = await asyncio.gather(*(apply(service, a, b) for a, b in both))
    assert Counter(a["status"] for a in answers) == {"pending": len(pairs), "accepted": len(pairs)}
    for user in ids:
        assert await friends(service, user) == [i for i in ids if i != user]
    accepted = [user for user, kind in told(service) if kind == "friend.accepted"]
    assert Counter(accepted) == dict.fromkeys(ids, len(ids) - 1)


async def test_reject_and_apply_again(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    application = await apply(service, a, b)
    told(service)
    for _ in range(2):
        rejected = await service.call("friend.reject", {"id": application["id"]}, user=b)
        assert rejected == application | {"status": "rejected"}
    assert told(service) == [(a, "friend.rejected"), (b, "friend.rejected")]
    with pytest.raises(Conflict, match="rejected"):
        await accept(service, b, application)
    again = await apply(service, a, b)
    assert again["status"] == "pending"
    await accept(service, b, again)
    with pytest.raises(Conflict):
        await service.call("friend.reject", {"id": again["id"]}, user=b)


async def test_only_the_receiver_answers(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "carol")
    application = await apply(service, a, b)
    for user in (a, c):
        for command in ("friend.accept", "friend.reject"):
            with pytest.raises(NotFound):
                await service.call(command, {"id": application["id"]}, user=user)


async def test_expiry(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    application = await apply(service, a, b)
    service.now += LIFE_MS
    assert await applications(service, b) == [(a, b, "expired")]
    for command in ("friend.accept", "friend.reject"):
        with pytest.raises(Conflict, match="expired"):
            await service.call(command, {"id": application["id"]}, user=b)
    assert (await apply(service, b, a))["status"] == "pending", "it does not cross an expired one"
    assert (await apply(service, a, b))["status"] == "accepted"


async def test_whom_one_cannot_apply_to(service: Service) -> None:
    (a,) = await people(service, "alice")
    with pytest.raises(NotFound) as missing:
        await apply(service, a, 999)
    assert missing.value.field == "user_id"
    for command, data in (("friend.apply", {"user_id": a}), ("friend.block", {"id": a})):
        with pytest.raises(BadRequest):
            await service.call(command, data, user=a)


async def test_applications_are_limited(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    answers = await asyncio.gather(
        *(apply(service, a, b) for _ in range(40)), return_exceptions=True
    )
    assert {e.code for e in answers if isinstance(e, AppError)} == {"rate_limited"}
    assert sum(isinstance(e, dict) for e in answers) >= 30


async def test_pages_of_applications(service: Service) -> None:
    a, *others = await people(service, "alice", *(f"u{i}" for i in range(5)))
    for other in others[:3]:
        await apply(service, other, a)
    for other in others[3:]:
        await apply(service, a, other)
    seen, cursor = [], None
    while True:
        page = await service.call("friend.applications", {"limit": 2, "cursor": cursor}, user=a)
        seen += [x["id"] for x in page["applications"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 5
    assert len(await applications(service, a, direction="in")) == 3
    assert len(await applications(service, a, direction="out")) == 2
    for bad in ("x", "-1", "9" * 30):
        with pytest.raises(BadRequest):
            await applications(service, a, cursor=bad)


async def test_the_blocked_notice_nothing_and_the_blocker_sees_nothing(service: Service) -> None:
    """Answers to somebody who is blocked are those that anybody gets."""
    a, b, c = await people(service, "alice", "bob", "carol")
    await block(service, b, a)
    told(service)
    hidden, open_ = await apply(service, a, b, "hi"), await apply(service, a, c, "hi")
    same = ("greeting", "status", "created_at", "expires_at")
    assert [hidden[k] for k in same] == [open_[k] for k in same]
    assert told(service) == [(a, "friend.applied"), (a, "friend.applied"), (c, "friend.applied")]
    assert await applications(service, b) == []
    for command in ("friend.accept", "friend.reject"):
        with pytest.raises(NotFound):
            await service.call(command, {"id": hidden["id"]}, user=b)
    assert await apply(service, a, b, "hi") == hidden
    service.now += LIFE_MS
    assert await applications(service, a) == [(a, c, "expired"), (a, b, "expired")]
    # Once he is unblocked, the next application is seen.
    await unblock(service, b, a)
    assert await applications(service, b) == []
    await apply(service, a, b)
    assert await applications(service, b) == [(a, b, "pending")]


async def test_a_block_ends_what_waits(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "carol")
    to_a, to_c = await apply(service, b, a), await apply(service, a, c)
    await block(service, a, b)
    await block(service, a, c)
    assert await applications(service, a) == [(a, c, "expired")]
    assert await applications(service, b) == [(b, a, "pending")], "he is not told"
    with pytest.raises(NotFound):
        await accept(service, a, to_a)
    with pytest.raises(Conflict, match="expired"):
        await accept(service, c, to_c)
    with pytest.raises(Blocked):
        await apply(service, a, b)
    assert await friends(service, a) == []


async def test_block_and_unblock(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "carol")
    await befriend(service, a, b)
    told(service)
    for _ in range(2):
        await block(service, a, b)
    await block(service, a, c)
    assert told(service) == [(a, "friend.updated"), (a, "friend.updated")], "only one's own devices"
    blocked = (await service.call("friend.blocked", {}, user=a))["users"]
    assert [(u["user_id"], u["blocked"], "since" in u) for u in blocked] == [
        (b, True, True),
        (c, True, False),
    ]
    page = await service.call("friend.blocked", {"limit": 1}, user=a)
    assert page["next"] == str(b)
    page = await service.call("friend.blocked", {"limit": 1, "cursor": page["next"]}, user=a)
    assert ([u["user_id"] for u in page["users"]], page["next"]) == ([c], None)
    assert await friends(service, a) == [b], "the friendship rests"
    assert (await service.call("friend.list", {}, user=b))["friends"][0].get("blocked") is None
    for _ in range(2):
        await unblock(service, a, b)
    await unblock(service, a, c)
    assert (await service.call("friend.blocked", {}, user=a))["users"] == []
    assert await friends(service, a) == [b]
    assert (await service.call("friend.list", {}, user=a))["friends"][0].get("blocked") is None


async def test_delete(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "carol")
    await befriend(service, a, b)
    await block(service, b, a)
    told(service)
    for _ in range(2):
        await service.call("friend.delete", {"id": b}, user=a)
    assert told(service) == [(a, "friend.deleted"), (b, "friend.deleted")]
    assert await friends(service, a) == await friends(service, b) == []
    users = (await service.call("friend.blocked", {}, user=b))["users"]
    assert [u["user_id"] for u in users] == [a], "a block outlives the friendship"
    with pytest.raises(NotFound):
        await service.call("friend.delete", {"id": c}, user=a)
    await unblock(service, b, a)
    await befriend(service, a, b)
    assert await friends(service, b) == [a]


async def test_remark(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    with pytest.raises(NotFound):
        await service.call("friend.remark", {"id": b, "remark": "x"}, user=a)
    await befriend(service, a, b)
    told(service)
    for _ in range(2):
        friend = await service.call("friend.remark", {"id": b, "remark": "鲍勃"}, user=a)
        assert friend["remark"] == "鲍勃"
    assert told(service) == [(a, "friend.updated")]
    assert "remark" not in (await service.call("friend.list", {}, user=b))["friends"][0]
    friend = await service.call("friend.remark", {"id": b, "remark": ""}, user=a)
    assert "remark" not in friend
    with pytest.raises(BadRequest):
        await service.call("friend.remark", {"id": b, "remark": "x" * 51}, user=a)
    await service.call("friend.remark", {"id": b, "remark": "Bob"}, user=a)
    await service.call("friend.delete", {"id": b}, user=a)
    await befriend(service, b, a)
    assert "remark" not in (await service.call("friend.list", {}, user=a))["friends"][0]


async def test_pages_and_deltas_of_friends(service: Service) -> None:
    a, *others = await people(service, "alice", *(f"u{i}" for i in range(5)))
    for other in others:
        await befriend(service, other, a)

    async def read(limit: int, after: int | None) -> tuple[list[int], list[int], int]:
        found, removed, cursor = [], [], None
        while True:
            data = {"limit": limit, "cursor": cursor, "after_version": after}
            page = await service.call("friend.list", data, user=a)
            found += [f["user_id"] for f in page["friends"]]
            removed += page["removed"]
            cursor = page["next"]
            if cursor is None:
                return sorted(found), removed, page["version"]

    for limit in (1, 2, 50):
        found, removed, version = await read(limit, None)
        assert (found, removed) == (others, [])
    assert await read(50, version) == ([], [], version)
    await service.call("friend.remark", {"id": others[1], "remark": "x"}, user=a)
    await service.call("friend.delete", {"id": others[2]}, user=a)
    await service.call("friend.delete", {"id": a}, user=others[3])
    await block(service, others[4], a)
    for limit in (1, 50):
        found, removed, newer = await read(limit, version)
        assert (found, sorted(removed)) == ([others[1]], [others[2], others[3]])
    assert newer == version + 3, "that somebody has blocked one changes nothing one sees"
    assert (await read(50, None))[:2] == ([others[0], others[1], others[4]], [])
    with pytest.raises(BadRequest):
        await service.call("friend.list", {"cursor": "x"}, user=a)


async def test_a_deleted_account(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "carol")
    await befriend(service, a, b)
    application = await apply(service, a, c)
    await service.call("user.delete", {"password": "correct horse"}, user=a)
    (friend,) = (await service.call("friend.list", {}, user=b))["friends"]
    assert (friend["username"], friend["nickname"]) == ("", "deleted")
    with pytest.raises(NotFound):
        await apply(service, b, a)
    with pytest.raises(NotFound):
        await accept(service, c, application)
    with pytest.raises(AppError, match="deleted"):
        await apply(service, a, b)
    await service.call("friend.delete", {"id": a}, user=b)
    assert await friends(service, b) == []


async def test_two_accepts_race(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    application = await apply(service, a, b)
    told(service)
    answers = await asyncio.gather(*(accept(service, b, application) for _ in range(10)))
    assert {answer["user_id"] for answer in answers} == {a}
    assert told(service) == [(a, "friend.accepted"), (b, "friend.accepted")], "once"
    assert await rows(service) == {(a, b): (0, True), (b, a): (0, True)}


async def rows(service: Service) -> dict[tuple[int, int], tuple[int, bool]]:
    """Status and whether they are friends, of each direction."""
    async with service.resources.engine().connect() as connection:
        found = await connection.execute(select(friendship))
        return {(r.user_id, r.friend_id): (r.status, r.friends_ms is not None) for r in found}


async def test_accept_races_with_block_reject_and_delete(service: Service) -> None:
    """Whatever comes first: both sides agree, and whoever blocked has blocked."""
    ids = await people(service, *(f"u{i}" for i in range(6)))
    shuffle = random.Random(11).shuffle
    for _ in range(3):
        acts: list[tuple[str, dict[str, int], int]] = []
        for a in ids:
            for b in ids:
                if a < b:
                    try:
                        application = await apply(service, a, b)
                    except AppError:
                        continue
                    acts += [
                        ("friend.accept", {"id": application["id"]}, b),
                        ("friend.reject", {"id": application["id"]}, b),
                        ("friend.block", {"id": b}, a),
                        ("friend.block", {"id": a}, b),
                        ("friend.delete", {"id": b}, a),
                        ("friend.apply", {"user_id": a}, b),
                        ("friend.unblock", {"id": a}, b),
                    ]
        shuffle(acts)
        answers = await asyncio.gather(
            *(service.call(command, data, user=user) for command, data, user in acts),
            return_exceptions=True,
        )
        assert {type(e) for e in answers if isinstance(e, BaseException)} <= {
            Conflict,
            NotFound,
            Blocked,
        }
        state = await rows(service)
        for (a, b), (_, are_friends) in state.items():
            assert state.get((b, a), (0, False))[1] == are_friends
        gate = Gate.of(service.resources)
        for a in ids:
            for b in ids:
                if a != b:
                    relation = await gate.relation(a, b)
                    assert relation.friends == state.get((a, b), (0, False))[1]
                    assert relation.blocking == (state.get((a, b), (0, False))[0] == 1)
        for a in ids:
            for b in ids:
                if a != b:
                    await unblock(service, a, b)


async def test_a_change_removes_the_copy_before_its_answer(service: Service) -> None:
    a, b = await people(service, "alice", "bob")
    redis = service.resources.redis()
    application = await apply(service, a, b)
    changes = [
        ("friend.accept", {"id": application["id"]}, b),
        ("friend.block", {"id": a}, b),
        ("friend.block", {"id": a}, b),  # the first may have crashed before
        ("friend.unblock", {"id": a}, b),
        ("friend.delete", {"id": b}, a),
        ("friend.delete", {"id": b}, a),
    ]
    for command, data, user in changes:
        await redis.set(pair_key(a, b), "0")
        await service.call(command, data, user=user)
        assert await redis.get(pair_key(a, b)) is None, command


async def test_without_redis_a_block_is_no_promise(
    service: Service, redis_server: RedisServer
) -> None:
    a, b = await people(service, "alice", "bob")
    redis_server.kill()
    try:
        with pytest.raises(UnknownOutcome):
            await block(service, a, b)
        with pytest.raises(Blocked):
            await Gate.of(service.resources).private(b, a)
    finally:
        redis_server.start()
    assert told(service) == [(a, "friend.updated")]
    await block(service, a, b)


async def test_profiles_show_what_one_is_to_oneself(service: Service) -> None:
    a, b, c = await people(service, "alice", "bob", "bonnie")
    await befriend(service, a, b)
    await service.call("friend.remark", {"id": b, "remark": "Bobby"}, user=a)
    await block(service, a, c)
    bob = {"user_id": b, "username": "bob", "nickname": "bob", "friend": True, "remark": "Bobby"}
    online = {"online": False}
    bonnie = {"user_id": c, "username": "bonnie", "nickname": "bonnie", "blocked": True}
    assert await service.call("user.get", {"id": b}, user=a) == bob | online
    found = await service.call("user.search", {"q": "bo"}, user=a)
    assert found["users"] == [bob, bonnie]
    alice = {"user_id": a, "username": "alice", "nickname": "alice"}
    assert await service.call("user.get", {"id": a}, user=b) == alice | {"friend": True} | online
    assert await service.call("user.get", {"id": a}, user=c) == alice, "nothing tells of a block"
    assert await service.call("user.get", {"id": a}, user=a) == alice
    await block(service, b, a)
    assert await service.call("user.get", {"id": b}, user=a) == bob, (
        "only friends know of his presence"
    )
