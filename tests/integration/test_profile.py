"""Profiles: on SQLite and MariaDB."""

import asyncio

import pytest

from shared.errors import AppError, BadRequest, Forbidden, NotFound, Unauthenticated
from shared.gate import user_key
from tests.inprocess import PASSWORD, Service


async def names(service: Service, q: str, **data: object) -> list[str]:
    answer = await service.call("user.search", {"q": q, **data}, user=1)
    return [user["username"] for user in answer["users"]]


async def test_update(service: Service) -> None:
    user_id = await service.register("alice")
    before = await service.call("user.me", {}, user=user_id)
    changed = await service.call(
        "user.update", {"nickname": "Ä", "avatar": "https://a.example/b.png"}, user=user_id
    )
    assert changed == before | {"nickname": "Ä", "avatar": "https://a.example/b.png"}
    assert await service.call("user.update", {}, user=user_id) == changed
    for bad in ("javascript:alert(1)", "https://a b", "a.png", "https://a\nb"):
        with pytest.raises(BadRequest):
            await service.call("user.update", {"avatar": bad}, user=user_id)
    removed = await service.call("user.update", {"avatar": None}, user=user_id)
    assert removed == before | {"nickname": "Ä"}
    with pytest.raises(BadRequest):
        await service.call("user.update", {"nickname": " "}, user=user_id)


async def test_get_shows_what_is_public(service: Service) -> None:
    alice, bob = await service.register("alice"), await service.register("Bob")
    public = {"user_id": bob, "username": "Bob", "nickname": "Bob"}
    assert await service.call("user.get", {"id": bob}, user=alice) == public
    with pytest.raises(NotFound):
        await service.call("user.get", {"id": 2**53 - 1}, user=alice)


async def test_search(service: Service) -> None:
    for name in ("Alice", "alistair", "bob", "ALbert", "élise"):
        await service.register(name)
    zed = await service.register("zed")
    await service.call("user.update", {"nickname": "Ali the Great"}, user=zed)
    assert await names(service, "ali") == ["Alice", "alistair", "zed"]
    assert await names(service, "AL") == ["Alice", "alistair", "ALbert", "zed"]
    assert await names(service, "É") == ["élise"]
    assert await names(service, "e") == []
    assert await names(service, "lice") == []


async def test_search_knows_no_wildcards(service: Service) -> None:
    for name in ("a%b", "a_b", "axb", "a\\b", "%", "a'b"):
        await service.register(name)
    assert await names(service, "%") == ["%"]
    assert await names(service, "a%") == ["a%b"]
    assert await names(service, "a_") == ["a_b"]
    assert await names(service, "a\\") == ["a\\b"]
    assert await names(service, "a'") == ["a'b"]


async def test_search_pages(service: Service) -> None:
    registered = [f"user{i}" for i in range(7)]
    for name in registered:
        await service.register(name)
    found, cursor = [], None
    while True:
        data = {"q": "user", "limit": 3, "cursor": cursor}
        page = await service.call("user.search", data, user=1)
        found += [u["username"] for u in page["users"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == registered
    for bad in ("x", "-1", "9" * 30, "١"):
        with pytest.raises(BadRequest):
            await service.call("user.search", {"q": "user", "cursor": bad}, user=1)


async def test_delete(service: Service) -> None:
    alice, bob = await service.register("alice"), await service.register("bob")
    tokens = await service.login("alice")
    await service.resources.redis().set(user_key(alice), "1")
    with pytest.raises(Forbidden):
        await service.call("user.delete", {"password": "wrong"}, user=alice)
    assert await service.call("user.delete", {"password": PASSWORD}, user=alice) == {}
    assert service.kicked == [(f"im.v1.user.{alice}", tokens["sid"], "account_deleted")]
    assert await service.resources.redis().get(user_key(alice)) is None
    with pytest.raises(NotFound):
        await service.call("user.get", {"id": alice}, user=bob)
    assert await names(service, "alice") == await names(service, "deleted") == []
    # What an access token that has not expired yet can still do:
    for command, data in (
        ("user.me", {}),
        ("user.update", {"nickname": "back"}),
        ("user.delete", {"password": PASSWORD}),
        ("auth.change_password", {"old_password": PASSWORD, "new_password": "new password"}),
    ):
        with pytest.raises(Unauthenticated):
            await service.call(command, data, user=alice)
    with pytest.raises(Unauthenticated):
        await service.refresh(tokens["refresh_token"])
    with pytest.raises(Unauthenticated):
        await service.login("alice")


async def test_a_deleted_name_is_free_and_numbers_are_not_given_twice(service: Service) -> None:
    first = await service.register("alice")
    await service.call("user.delete", {"password": PASSWORD}, user=first)
    second = await service.register("Alice")
    await service.call("user.delete", {"password": PASSWORD}, user=second)
    assert len({first, second, await service.register("alice")}) == 3


async def test_a_log_in_cannot_slip_past_a_deletion(service: Service) -> None:
    user_id = await service.register("alice")
    calls = [service.login("alice") for _ in range(4)]
    delete = service.call("user.delete", {"password": PASSWORD}, user=user_id)
    outcomes = await asyncio.gather(*calls, delete, return_exceptions=True)
    assert outcomes[-1] == {}
    for outcome in outcomes[:-1]:
        assert isinstance(outcome, dict) or (
            isinstance(outcome, AppError) and outcome.code == "unauthenticated"
        )
    assert (await service.call("auth.sessions", {}, user=user_id))["sessions"] == []
