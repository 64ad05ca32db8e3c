"""Presence and typing: what edges report, and who hears of it. On SQLite and MariaDB with a real Redis."""

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from functions.presence.handlers import LIFE_S
from schemas.commands import BY_NAME
from shared import tables
from shared.errors import AppError, BadRequest, Blocked, NotFriend, NotMember, RateLimited
from shared.ids import now_ms
from shared.presence import DEAD_AFTER_MS, PresenceStore
from tests.inprocess import Service
from tests.integration.test_friends import befriend, block, people, unblock

EDGE, OTHER = "edge-1", "edge-2"


def connection(user: int, name: str, session: str = "none") -> dict[str, Any]:
    return {"user_id": user, "connection_id": name, "session_id": session}


async def report(service: Service, edge: str = EDGE, **data: Any) -> bool:
    answer = await service.call("presence.report", {"edge": edge, **data})
    return bool(answer["known"])


async def subscribe(service: Service, user: int, *peers: int, **data: Any) -> list[dict[str, Any]]:
    answer = await service.call("presence.subscribe", {"user_ids": peers, **data}, user=user)
    found: list[dict[str, Any]] = answer["users"]
    return found


async def online(service: Service, user: int, peer: int) -> bool:
    (found,) = await subscribe(service, user, peer)
    return bool(found["online"])


def heard(service: Service) -> list[tuple[int, int, bool]]:
    """(who heard, of whom, whether on-line)"""
    return [
        (user, data["user_id"], data["online"])
        for user, kind, data in service.take_pushed()
        if kind == "presence"
    ]


@pytest.fixture
async def pair(service: Service) -> tuple[int, int]:
    """Alice and Bob, friends; she has subscribed to him."""
    a, b = await people(service, "alice", "bob")
    await befriend(service, a, b)
    assert not await online(service, a, b)
    assert await report(service, begins=True)
    service.take_pushed()
    return a, b


async def test_three_devices(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    phone = (await service.login("bob", platform="ios"))["sid"]
    web = (await service.login("bob", platform="web"))["sid"]
    await report(service, joined=[connection(b, "c1", phone)])
    assert heard(service) == [(a, b, True)]
    await report(service, OTHER, begins=True, joined=[connection(b, "c2", web)])
    await report(service, joined=[connection(b, "c3", phone)])
    assert heard(service) == [(a, b, True)], "a new kind of device is news, one more phone is none"
    (found,) = await subscribe(service, a, b)
    assert (found["online"], found["devices"]) == (True, ["ios", "web"])
    await report(service, left=[connection(b, "c1")])
    await report(service, OTHER, left=[connection(b, "c2")])
    assert heard(service) == [(a, b, True)]
    before = now_ms()
    await report(service, left=[connection(b, "c3")])
    await report(service, left=[connection(b, "c3")])
    assert heard(service) == [(a, b, False)]
    (found,) = await subscribe(service, a, b)
    assert before - 1 <= found["last_seen"] <= now_ms() + 1
    profile = await service.call("user.get", {"id": b}, user=a)
    assert (profile["online"], profile["last_seen"]) == (False, found["last_seen"])


@pytest.fixture
def no_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test sweeps itself, and counts how often."""
    monkeypatch.setattr("functions.presence.sweeper.EVERY_S", 3600)


@pytest.mark.usefixtures("no_sweeper")
async def test_an_edge_that_was_killed(service: Service, pair: tuple[int, int]) -> None:
    """Nothing but its silence tells."""
    a, b = pair
    store, redis = PresenceStore(service.resources.redis()), service.resources.redis()
    await report(service, joined=[connection(b, f"c{i}") for i in range(1200)])
    await report(service, OTHER, begins=True, joined=[connection(b, "other")])
    heard(service)
    last = now_ms() - DEAD_AFTER_MS - 1000
    await redis.zadd("im:on:edges", {EDGE: last})
    deps = service.deps("presence")
    rounds = 0
    while (await store.sweep())[0]:
        rounds += 1
    assert rounds >= 3, "no call takes off all at once"
    assert await online(service, a, b), "he has a connection elsewhere"
    assert not await report(service), "one that was only frozen has to report everything again"
    await redis.zadd("im:on:edges", {OTHER: last})
    changed = []
    while (swept := await store.sweep())[0]:
        changed += swept[1]
    assert changed == [b]
    (push,) = await deps.watchers.tell(changed)
    assert push.subject == f"im.v1.user.{a}"
    (found,) = await subscribe(service, a, b)
    assert (found["online"], found["last_seen"]) == (False, last)
    assert not await redis.keys("im:on:*")


async def test_the_sweeper_runs(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    await report(service, joined=[connection(b, "c1")])
    heard(service)
    await service.resources.redis().zadd("im:on:edges", {EDGE: now_ms() - DEAD_AFTER_MS - 1})
    async with asyncio.timeout(20):
        while not service.pushed:
            await asyncio.sleep(0.05)
    assert heard(service) == [(a, b, False)]


async def test_redis_was_emptied(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    await report(service, joined=[connection(b, "c1")])
    await service.resources.redis().flushall()
    assert not await report(service)
    assert await report(service, OTHER, begins=True, joined=[connection(b, "c1")], replaces=EDGE)
    assert await online(service, a, b)


async def test_a_new_report_of_everything_is_no_news(
    service: Service, pair: tuple[int, int]
) -> None:
    a, b = pair
    await report(service, joined=[connection(b, "c1")])
    heard(service)
    await report(service, OTHER, begins=True)
    await report(service, OTHER, joined=[connection(b, "c1")], replaces=EDGE)
    store = PresenceStore(service.resources.redis())
    while (await store.sweep())[0]:
        pass
    assert heard(service) == []
    assert await online(service, a, b)
    await report(service, OTHER, left=[connection(b, "c1")])
    assert heard(service) == [(a, b, False)]


async def test_connections_of_an_edge_nobody_knows(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    await report(service, joined=[connection(b, "c1")])
    await service.resources.redis().delete("im:on:edges")
    assert not await online(service, a, b)


async def test_an_edge_that_says_good_bye(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    await report(service, joined=[connection(b, "c1")])
    await report(service, ends=True)
    store = PresenceStore(service.resources.redis())
    while (await store.sweep())[0]:
        pass
    assert not await online(service, a, b)


async def test_only_friends_hear(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    (c,) = await people(service, "carol")
    assert await subscribe(service, c, b, 999, c) == []
    for blocker, blocked in ((b, a), (a, b)):
        await report(service, joined=[connection(b, "c1")])
        heard(service)
        await block(service, blocker, blocked)
        await report(service, left=[connection(b, "c1")])
        await report(service, joined=[connection(b, "c1")])
        assert heard(service) == []
        (found,) = await subscribe(service, a, b)
        assert not found["online"]
        assert "last_seen" not in found
        await unblock(service, blocker, blocked)
        assert await online(service, a, b)
        await report(service, left=[connection(b, "c1")])
        assert heard(service) == [(a, b, False)], "the subscription has outlived the block"
    await service.call("friend.delete", {"id": a}, user=b)
    service.take_pushed()
    await report(service, joined=[connection(b, "c1")])
    assert heard(service) == []
    assert await subscribe(service, a, b) == []


async def test_subscriptions_end(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    redis = service.resources.redis()
    await redis.zadd(f"im:watch:{b}", {str(a): now_ms() - 1})
    await report(service, joined=[connection(b, "c1")])
    assert heard(service) == []
    await subscribe(service, a, b)
    assert await redis.ttl(f"im:watch:{b}") <= LIFE_S
    await subscribe(service, a, b, remove=True)
    await report(service, left=[connection(b, "c1")])
    assert heard(service) == []


async def test_only_the_edge_reports(service: Service) -> None:
    assert "presence.report" not in BY_NAME


async def test_typing(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    for named in ({"receiver_id": b}, {"conversation_id": f"p_{a}_{b}"}):
        assert await service.call("typing.send", named, user=a) == {}
    await service.call("typing.send", {"receiver_id": b, "typing": False}, user=a)
    common = {"conversation_id": f"p_{a}_{b}", "user_id": a}
    assert service.take_pushed() == [
        (b, "typing", common | {"typing": True}),
        (b, "typing", common | {"typing": True}),
        (b, "typing", common | {"typing": False}),
    ]
    await block(service, b, a)
    with pytest.raises(Blocked):
        await service.call("typing.send", {"receiver_id": b}, user=a)
    await unblock(service, b, a)
    service.take_pushed()
    answers = await asyncio.gather(
        *(service.call("typing.send", {"receiver_id": b}, user=a) for _ in range(30)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, RateLimited) for answer in answers) > 0
    assert not any(kind == "message" for _, kind, _ in service.take_pushed())


async def test_typing_that_is_refused(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    for data in (
        {},
        {"receiver_id": b, "conversation_id": f"p_{a}_{b}"},
        {"receiver_id": a},
        {"conversation_id": f"p_{b}_{b + 1}"},
        {"receiver_id": 999},
    ):
        with pytest.raises(AppError) as refused:
            await service.call("typing.send", data, user=a)
        assert refused.value.code in ("bad_request", "forbidden", "not_found")
    (c,) = await people(service, "carol")
    service.deps("presence").gate._strangers = False
    service.deps("presence").gate._open = {b"1|1|1"}
    with pytest.raises(NotFriend):
        await service.call("typing.send", {"receiver_id": c}, user=a)
    with pytest.raises(BadRequest):
        await service.call("presence.subscribe", {"user_ids": list(range(1, 502))}, user=a)


async def test_typing_in_a_group(service: Service, pair: tuple[int, int]) -> None:
    a, b = pair
    async with service.resources.engine().begin() as sql:
        values = dict.fromkeys(("version", "members_version", "created_ms", "changed_ms"), 1)
        await sql.execute(
            insert(tables.group).values(
                id=5,
                name="g",
                owner_id=a,
                created_at="2026-01-01 00:00:00.000",
                announcement="",
                join_mode="open",
                past="hidden",
                member_count=1,
                **values,
            )
        )
        await sql.execute(
            insert(tables.group_member).values(
                group_id=5, user_id=a, joined_at="2026-01-01 00:00:00.000", joined_ms=1
            )
        )
    pushed: list[tuple[str, bytes]] = []
    service._bus.listen("im.v1.group.*", lambda to, _r, frame, _h: pushed.append((to, frame)))
    for named in ({"group_id": 5}, {"conversation_id": "g_5"}):
        await service.call("typing.send", named, user=a)
    with pytest.raises(NotMember):
        await service.call("typing.send", {"group_id": 5}, user=b)
    assert [to for to, _ in pushed] == ["im.v1.group.5"] * 2
    assert msgspec.json.decode(pushed[0][1]) == {
        "type": "typing",
        "data": {"conversation_id": "g_5", "user_id": a, "typing": True},
    }
