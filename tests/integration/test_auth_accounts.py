"""Registration, log-in, passwords: on SQLite and MariaDB, with a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import ErrorCode
from shared.adapters.redis import open_redis
from shared.auth import TokenVerifier
from shared.errors import AppError, Conflict, Forbidden, RateLimited, Unauthenticated
from shared.throttle import TRIES, WINDOW_MS, Throttle
from tests.inprocess import NOW, PASSWORD, Service, running
from tests.servers import MariaDbServer, RedisServer


async def code(call: Any) -> ErrorCode | None:
    """The error's code, None for success."""
    try:
        await call
    except AppError as error:
        return error.code
    return None


async def test_register(service: Service) -> None:
    me = await service.call(
        "auth.register", {"username": "Alice", "password": PASSWORD, "nickname": "Al 🐸"}
    )
    assert me == {
        "user_id": me["user_id"],
        "username": "Alice",
        "nickname": "Al 🐸",
        "created_at": NOW,
    }
    assert await service.call("user.me", {}, user=me["user_id"]) == me
    assert await service.register("bob") == me["user_id"] + 1
    assert (await service.call("user.me", {}, user=me["user_id"] + 1))["nickname"] == "bob"


async def test_names_are_unique_without_case_but_with_accents(service: Service) -> None:
    await service.register("Straße")
    for taken in ("straße", "STRASSE", "Ｓtrasse"):
        with pytest.raises(Conflict) as refused:
            await service.register(taken)
        assert refused.value.field == "username"
    assert len({await service.register(name) for name in ("jose", "josé", "josë")}) == 3


async def test_of_two_registrations_at_once_one_wins(service: Service) -> None:
    names = ["Carol", "carol", "CAROL", "cARol", "carOL", "CArol"]
    codes = await asyncio.gather(*(code(service.register(name)) for name in names))
    assert sorted(codes, key=str) == [None, *["conflict"] * 5]


async def test_the_unique_key_decides_when_the_look_up_came_too_early(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.register("dave")

    async def not_taken(_key: str) -> bool:
        return False

    monkeypatch.setattr(service.deps("auth").accounts, "name_taken", not_taken)
    with pytest.raises(Conflict):
        await service.register("Dave")


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"username": "a b", "password": PASSWORD}, "username"),
        ({"username": "a\u200db", "password": PASSWORD}, "username"),
        ({"username": "", "password": PASSWORD}, "username"),
        ({"username": "a" * 65, "password": PASSWORD}, "username"),
        ({"username": "alice", "password": "short"}, "password"),
        ({"username": "alice", "password": PASSWORD, "nickname": "  "}, "nickname"),
    ],
)
async def test_bad_registrations_name_the_field(
    service: Service, data: dict[str, object], field: str
) -> None:
    with pytest.raises(AppError) as refused:
        await service.call("auth.register", data)
    assert (refused.value.code, refused.value.field) == ("bad_request", field)


async def test_closed_registration(db_url: str, redis_server: RedisServer) -> None:
    async with running(db_url, redis_server.url, IM_REGISTRATION="closed") as service:
        with pytest.raises(Forbidden):
            await service.register("alice")


async def test_login(service: Service) -> None:
    user_id = await service.register("Alice")
    tokens = await service.login("ALICE", platform="ios")
    assert tokens["expires_in"] == 900
    assert tokens["user"] == await service.call("user.me", {}, user=user_id)
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["sid"]) == (str(user_id), tokens["sid"])
    verifier = TokenVerifier.from_settings(service.resources.settings)
    with pytest.raises(Unauthenticated):
        verifier.verify(tokens["access_token"] + "x")


async def test_unknown_user_and_wrong_password_are_the_same(service: Service) -> None:
    await service.register("alice")
    answers = []
    for name in ("alice", "nobody"):
        with pytest.raises(Unauthenticated) as refused:
            await service.login(name, "wrong password")
        answers.append(refused.value.body())
    assert answers[0] == answers[1]
    known, unknown = service.passwords.verified
    assert known is not None, "each answer costs a hash:"
    assert unknown is None, "of the password, or of the dummy"


async def test_a_new_log_in_of_a_device_ends_its_older_session(service: Service) -> None:
    user_id = await service.register("alice")
    other = await service.login("alice", device_id="tablet")
    anonymous = await service.login("alice")
    old = await service.login("alice", device_id="phone")
    service.now += 1
    new = await service.login("alice", device_id="phone")
    assert service.kicked == [(f"im.v1.user.{user_id}", old["sid"], "replaced")]
    live = await service.call("auth.sessions", {}, user=user_id)
    assert {s["session_id"] for s in live["sessions"]} == {
        other["sid"],
        anonymous["sid"],
        new["sid"],
    }
    with pytest.raises(Unauthenticated):
        await service.refresh(old["refresh_token"])


async def test_a_session_cannot_slip_past_a_change_of_password(service: Service) -> None:
    user_id = await service.register("alice")
    first = await service.login("alice")
    verify = service.passwords.verify
    change = {"old_password": PASSWORD, "new_password": "another password"}

    async def verify_then_change(password: str, stored: str | None) -> bool:
        good = await verify(password, stored)
        service.passwords.verify = verify  # type: ignore[method-assign]
        await service.call("auth.change_password", change, user=user_id, session=first["sid"])
        return good

    service.passwords.verify = verify_then_change  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await service.login("alice")
    live = await service.call("auth.sessions", {}, user=user_id)
    assert [s["session_id"] for s in live["sessions"]] == [first["sid"]]


async def test_change_password(service: Service) -> None:
    user_id = await service.register("alice")
    mine, other = await service.login("alice"), await service.login("alice")
    change = {"old_password": PASSWORD, "new_password": "another password"}
    with pytest.raises(Forbidden):
        await service.call("auth.change_password", change | {"old_password": "wrong"}, user=user_id)
    assert service.kicked == []
    assert (
        await service.call("auth.change_password", change, user=user_id, session=mine["sid"]) == {}
    )
    assert service.kicked == [(f"im.v1.user.{user_id}", other["sid"], "password_changed")]
    await service.refresh(mine["refresh_token"])
    with pytest.raises(Unauthenticated):
        await service.refresh(other["refresh_token"])
    with pytest.raises(Unauthenticated):
        await service.login("alice")
    await service.login("alice", "another password")


async def test_two_changes_of_password_at_once(service: Service) -> None:
    user_id = await service.register("alice")
    changes = [{"old_password": PASSWORD, "new_password": f"password {i}"} for i in range(4)]
    codes = await asyncio.gather(
        *(code(service.call("auth.change_password", c, user=user_id)) for c in changes)
    )
    assert sorted(codes, key=str) == [None, "forbidden", "forbidden", "forbidden"]
    await service.login("alice", f"password {codes.index(None)}")


# Throttling


async def guess(service: Service, name: str, times: int) -> list[ErrorCode | None]:
    return [await code(service.login(name, "wrong password")) for _ in range(times)]


async def test_guessing_is_throttled_before_any_hash(service: Service) -> None:
    await service.register("alice")
    await service.register("bob")
    assert await guess(service, "alice", TRIES) == ["unauthenticated"] * TRIES
    hashes = len(service.passwords.verified)
    with pytest.raises(RateLimited) as refused:
        await service.login("ALICE")
    assert refused.value.retry_after_ms is not None
    assert 0 < refused.value.retry_after_ms <= WINDOW_MS
    assert len(service.passwords.verified) == hashes
    await service.login("bob")
    await service.resources.redis().flushdb()
    await service.login("alice")


async def test_unknown_names_are_throttled_alike(service: Service) -> None:
    assert await guess(service, "nobody", TRIES + 1) == ["unauthenticated"] * TRIES + [
        "rate_limited"
    ]


async def test_tries_made_at_once_count_too(service: Service) -> None:
    await service.register("alice")
    codes = await asyncio.gather(
        *(code(service.login("alice", "wrong password")) for _ in range(3 * TRIES))
    )
    assert codes.count("unauthenticated") == TRIES
    assert codes.count("rate_limited") == 2 * TRIES


async def test_success_forgets_the_tries(service: Service) -> None:
    await service.register("alice")
    for _ in range(3):
        assert await guess(service, "alice", TRIES - 1) == ["unauthenticated"] * (TRIES - 1)
        await service.login("alice")


async def test_a_locked_log_in_does_not_lock_who_is_logged_in(service: Service) -> None:
    user_id = await service.register("alice")
    await guess(service, "alice", TRIES + 1)
    change = {"old_password": PASSWORD, "new_password": "another password"}
    await service.call("auth.change_password", change, user=user_id)


async def test_guesses_of_a_thief_with_an_access_token_are_counted_together(
    service: Service,
) -> None:
    user_id = await service.register("alice")
    wrong = {"old_password": "wrong", "new_password": "another password"}
    codes = []
    for _ in range(TRIES // 2):
        codes.append(await code(service.call("auth.change_password", wrong, user=user_id)))
        codes.append(await code(service.call("user.delete", {"password": "wrong"}, user=user_id)))
    assert codes == ["forbidden"] * TRIES
    assert (
        await code(service.call("user.delete", {"password": PASSWORD}, user=user_id))
        == "rate_limited"
    )


async def test_limits_off(db_url: str, redis_server: RedisServer) -> None:
    async with running(db_url, redis_server.url, IM_RATE_LIMITS="off") as service:
        assert await guess(service, "alice", 2 * TRIES) == ["unauthenticated"] * 2 * TRIES


@pytest.fixture
async def without_redis(service: Service, redis_server: RedisServer) -> AsyncIterator[Service]:
    redis_server.kill()
    try:
        yield service
    finally:
        redis_server.start()


async def test_without_redis_the_process_counts(without_redis: Service) -> None:
    service = without_redis
    await service.register("alice")
    await service.login("alice")
    assert await guess(service, "alice", TRIES + 1) == ["unauthenticated"] * TRIES + [
        "rate_limited"
    ]
    await service.register("bob")
    await service.login("bob")


async def test_a_window_of_the_process_ends() -> None:
    now = 0.0
    client = open_redis("redis://127.0.0.1:1")
    throttle = Throttle(client, clock=lambda: now)
    for _ in range(TRIES):
        await throttle.take("login:alice")
    with pytest.raises(RateLimited) as refused:
        await throttle.take("login:alice")
    assert refused.value.retry_after_ms == WINDOW_MS
    now += WINDOW_MS / 1000
    await throttle.take("login:alice")
    await throttle.clear("login:alice")
    for _ in range(TRIES):
        await throttle.take("login:alice")
    await client.aclose()


# The database away


async def test_database_away(mariadb_server: MariaDbServer, redis_server: RedisServer) -> None:
    async with running(await mariadb_server.new_database(), redis_server.url) as service:
        user_id = await service.register("alice")
        mariadb_server.kill()
        try:
            for call in (
                service.register("bob"),
                service.login("alice"),
                service.call("auth.sessions", {}, user=user_id),
                service.call("auth.logout", {}, user=user_id, session="some"),
                service.call("user.me", {}, user=user_id),
                service.call("user.update", {"nickname": "Al"}, user=user_id),
            ):
                assert await code(call) == "unavailable"
        finally:
            mariadb_server.start()
        await service.login("alice")


async def test_a_commit_that_breaks_off_is_an_unknown_outcome(
    mariadb_server: MariaDbServer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(await mariadb_server.new_database(), redis_server.url) as service:
        engine = service.resources.engine()
        commit = AsyncConnection.commit

        async def cut_off_then_commit(connection: AsyncConnection) -> None:
            own = (await connection.execute(text("SELECT CONNECTION_ID()"))).scalar()
            monkeypatch.setattr(AsyncConnection, "commit", commit)
            async with engine.connect() as killer:
                await killer.execute(text(f"KILL {own}"))
            await connection.commit()

        monkeypatch.setattr(AsyncConnection, "commit", cut_off_then_commit)
        assert await code(service.register("alice")) == "unknown_outcome"
        assert await code(service.register("alice")) is None
