"""HTTP calls out of the table of commands, and what becomes of every kind of failure."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from clients.python.natterjack import (
    Api,
    ApiError,
    Backoff,
    Forbidden,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnknownOutcome,
)
from clients.python.natterjack.ids import private_conversation, uuid7
from schemas.auth import Login, RevokeSession, Tokens
from schemas.messages import GetHistory, History
from schemas.types import Empty
from schemas.users import GetUser, SearchUsers, User, Users

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[Api]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []
    async with aiohttp.ClientSession() as http:

        async def start(answer: Answer) -> Api:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            servers.append(TestServer(app))
            await servers[-1].start_server()
            return Api(str(servers[-1].make_url("/")), http)

        yield start
    for server in servers:
        await server.close()


def error(code: str, status: int, **fields: Any) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        body = {"code": code, "message": "why", "trace_id": "t", **fields}
        return web.json_response(body, status=status)

    return answer


async def test_where_the_fields_of_a_request_go(serve: Serve) -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, await request.read()))
        empty: dict[str, Any] = {
            "users": [],
            "next": None,
            "messages": [],
            "changes": [],
            "has_more": False,
        }
        user = {"user_id": 7, "username": "x", "nickname": "x", "max_seq": 0, "max_rev": 0}
        return web.json_response({"code": "ok", "data": empty | user})

    api = await serve(answer)
    await api.call(GetUser(7), User)
    await api.call(SearchUsers("a&b ü", limit=5), Users)
    await api.call(GetHistory("p_1_2", after_seq=0), History)
    await api.call(RevokeSession("s-1"), Empty)
    with pytest.raises(ApiError, match="Tokens is malformed"):
        await api.call(Login("a", "b"), Tokens)
    assert seen == [
        ("GET", "/api/v1/users/7", b""),
        ("GET", "/api/v1/users?q=a%26b+%C3%BC&limit=5", b""),
        ("GET", "/api/v1/messages?conversation_id=p_1_2&after_seq=0", b""),
        ("DELETE", "/api/v1/auth/sessions/s-1", b""),
        ("POST", "/api/v1/auth/login", b'{"username":"a","password":"b"}'),
    ]


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("not_found", 404, NotFound),
        ("blocked", 403, Forbidden),
        ("rate_limited", 429, RateLimited),
        ("unauthenticated", 401, Unauthenticated),
        ("of_a_newer_server", 418, ApiError),
    ],
)
async def test_error_codes(serve: Serve, code: str, status: int, kind: type[ApiError]) -> None:
    api = await serve(error(code, status, retry_after_ms=9, field="f"))
    with pytest.raises(kind) as raised:
        await api.call(GetUser(1), User)
    got = raised.value
    assert type(got) is kind
    assert (got.code, got.message, got.trace_id, got.retry_after_ms, got.field) == (
        *(code, "why", "t", 9, "f"),
    )


@pytest.mark.parametrize(
    ("status", "kind"), [(502, UnknownOutcome), (503, Unavailable), (504, UnknownOutcome)]
)
async def test_the_page_of_a_proxy(serve: Serve, status: int, kind: type[ApiError]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="<h1>Bad Gateway</h1>")

    with pytest.raises(kind):
        await (await serve(answer)).call(GetUser(1), User)


async def test_an_answer_that_does_not_come(serve: Serve) -> None:
    """The request may have been carried out: that is not a failure."""

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(UnknownOutcome):
        await (await serve(answer)).call(Login("a", "b"), Tokens)


async def test_a_server_that_is_not_there() -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(Unavailable, match=r"cannot reach http://127\.0\.0\.1:1"):
            await Api("http://127.0.0.1:1/", http).call(GetUser(1), User)


def test_uuid7_is_one_and_grows_with_time() -> None:
    ids = [uuid7() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(UUID(i).version, UUID(i).variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)


def test_the_name_of_a_private_conversation() -> None:
    assert private_conversation(12, 3) == private_conversation(3, 12) == "p_3_12"


def test_waits_grow_and_keep_to_what_the_server_asks() -> None:
    backoff = Backoff(base_s=1, cap_s=8)
    assert all(0 <= backoff.delay_s(0) <= 1 for _ in range(100))
    assert all(0 <= backoff.delay_s(50) <= 8 for _ in range(100))
    assert all(5 <= backoff.delay_s(3, retry_after_ms=5000) <= 13 for _ in range(100))
