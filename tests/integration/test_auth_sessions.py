"""Refresh, log-out, list and revoke: on SQLite and MariaDB."""

import asyncio

import pytest

from functions.auth.refresh import LIFETIME_MS, REPEAT_MS
from shared.errors import AppError, BadRequest, NotFound, Unauthenticated
from tests.inprocess import Service


async def test_refresh_rotates(service: Service) -> None:
    await service.register("alice")
    tokens = await service.login("alice")
    token = tokens["refresh_token"]
    seen = {token}
    for _ in range(3):
        service.now += 60_000
        answer = await service.call("auth.refresh", {"refresh_token": token})
        assert answer["user"] == tokens["user"]
        assert answer["access_token"] != tokens["access_token"]
        token = answer["refresh_token"]
        seen.add(token)
    assert len(seen) == 4
    assert {t.partition(".")[0] for t in seen} == {tokens["sid"]}


async def test_a_stolen_token_ends_the_session(service: Service) -> None:
    user_id = await service.register("alice")
    tokens = await service.login("alice")
    other = await service.login("alice")
    newest = await service.refresh(tokens["refresh_token"])
    service.now += REPEAT_MS + 1
    for token in (tokens["refresh_token"], newest):
        with pytest.raises(Unauthenticated):
            await service.refresh(token)
    assert service.kicked == [(f"im.v1.user.{user_id}", tokens["sid"], "token_reused")]
    await service.refresh(other["refresh_token"])


async def test_a_lost_answer_may_be_asked_for_again(service: Service) -> None:
    await service.register("alice")
    token = (await service.login("alice"))["refresh_token"]
    lost = await service.refresh(token)
    service.now += REPEAT_MS
    again = await service.refresh(token)
    assert again != lost
    await service.refresh(again)
    with pytest.raises(Unauthenticated):
        await service.refresh(token)


async def test_many_refreshes_at_once(service: Service) -> None:
    await service.register("alice")
    token = (await service.login("alice"))["refresh_token"]
    calls = [service.refresh(token) for _ in range(12)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    codes = {a.code for a in answers if isinstance(a, AppError)}
    given = sorted((a for a in answers if isinstance(a, str)), key=lambda t: int(t.split(".")[1]))
    assert codes <= {"unavailable"}
    generations = [int(t.split(".")[1]) for t in given]
    assert generations == list(range(2, len(given) + 2)), "no two got the same generation"
    assert service.kicked == []
    await service.refresh(given[-1])


@pytest.mark.parametrize("bad", ["x", "a.b.c", "no-such-session.1.x", "é.1.x", "a" * 256])
async def test_rubbish_is_no_token(service: Service, bad: str) -> None:
    with pytest.raises(Unauthenticated):
        await service.refresh(bad)


async def test_a_forgery_does_not_end_the_session(service: Service) -> None:
    await service.register("alice")
    tokens = await service.login("alice")
    with pytest.raises(Unauthenticated):
        await service.refresh(f"{tokens['sid']}.1.forged")
    await service.refresh(tokens["refresh_token"])


async def test_expiry_slides(service: Service) -> None:
    await service.register("alice")
    token = (await service.login("alice"))["refresh_token"]
    service.now += LIFETIME_MS - 1
    token = await service.refresh(token)
    service.now += LIFETIME_MS
    with pytest.raises(Unauthenticated):
        await service.refresh(token)


async def test_logout(service: Service) -> None:
    user_id = await service.register("alice")
    tokens = await service.login("alice")
    assert await service.call("auth.logout", {}, user=user_id, session=tokens["sid"]) == {}
    assert service.kicked == [(f"im.v1.user.{user_id}", tokens["sid"], "logged_out")]
    with pytest.raises(Unauthenticated):
        await service.refresh(tokens["refresh_token"])
    # A repeat, because the answer was lost, is no error.
    assert await service.call("auth.logout", {}, user=user_id, session=tokens["sid"]) == {}


async def test_logout_of_a_named_session(service: Service) -> None:
    user_id = await service.register("alice")
    mine, other = await service.login("alice"), await service.login("alice")
    named = {"session_id": other["sid"]}
    await service.call("auth.logout", named, user=user_id, session=mine["sid"])
    assert service.kicked == [(f"im.v1.user.{user_id}", other["sid"], "revoked")]
    await service.refresh(mine["refresh_token"])
    with pytest.raises(BadRequest) as refused:
        await service.call("auth.logout", {}, user=user_id)
    assert refused.value.field == "session_id"


async def test_nobody_ends_what_is_not_his(service: Service) -> None:
    alice, bob = await service.register("alice"), await service.register("bob")
    tokens = await service.login("bob")
    for command, data in (
        ("auth.revoke_session", {"id": tokens["sid"]}),
        ("auth.logout", {"session_id": tokens["sid"]}),
        ("auth.revoke_session", {"id": "no-such-session"}),
    ):
        with pytest.raises(NotFound):
            await service.call(command, data, user=alice)
    # A session claimed by a header grants nothing.
    await service.call("auth.logout", {}, user=alice, session=tokens["sid"])
    await service.refresh(tokens["refresh_token"])
    assert await service.call("auth.revoke_session", {"id": tokens["sid"]}, user=bob) == {}
    with pytest.raises(NotFound):
        await service.call("auth.revoke_session", {"id": tokens["sid"]}, user=bob)


async def test_list_pages_newest_first(service: Service) -> None:
    user_id = await service.register("alice")
    await service.register("bob")
    await service.login("bob")
    opened = []
    for i in range(5):
        service.now += i % 2  # some within the same millisecond
        opened.append(await service.login("alice", device_id=f"device-{i}", platform="web"))
    await service.call("auth.revoke_session", {"id": opened[0]["sid"]}, user=user_id)
    current = opened[3]["sid"]
    found, cursor = [], None
    while True:
        page = await service.call(
            "auth.sessions", {"limit": 2, "cursor": cursor}, user=user_id, session=current
        )
        assert len(page["sessions"]) <= 2
        found += page["sessions"]
        cursor = page["next"]
        if cursor is None:
            break
    assert {s["session_id"] for s in found} == {t["sid"] for t in opened[1:]}
    times = [s["created_at"] for s in found]
    assert times == sorted(times, reverse=True)
    assert [s["session_id"] for s in found if s.get("current")] == [current]
    assert {s["platform"] for s in found} == {"web"}
    assert {s["device_id"] for s in found} == {f"device-{i}" for i in range(1, 5)}
    with pytest.raises(BadRequest):
        await service.call("auth.sessions", {"cursor": "x"}, user=user_id)


async def test_which_sessions_have_ended(service: Service) -> None:
    user_id = await service.register("alice")
    gone, here = await service.login("alice"), await service.login("alice")
    await service.call("auth.logout", {}, user=user_id, session=gone["sid"])
    asked = [
        {"user_id": user_id, "session_id": gone["sid"]},
        {"user_id": user_id, "session_id": here["sid"]},
        {"user_id": user_id + 1, "session_id": gone["sid"]},
        {"user_id": user_id, "session_id": "never-was"},
    ]
    assert await service.call("auth.check", {"sessions": asked}) == {"ended": asked[:1]}
    assert await service.call("auth.check", {"sessions": asked[1:]}) == {}
