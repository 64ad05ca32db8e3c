import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from shared import subjects
from shared.adapters.nats import NatsBus
from shared.errors import AppError, Conflict, RateLimited, Unavailable
from shared.hosts.nats import error_headers
from tests.edge import EdgeProcess, token
from tests.servers import NatsServer

ORIGIN = "https://app.example.com"
BEARER = {"Authorization": f"Bearer {token()}"}


@pytest.fixture(scope="module")
def edge(nats_server: NatsServer) -> Iterator[EdgeProcess]:
    with EdgeProcess(
        nats_server.url, IM_CORS_ORIGINS=f"{ORIGIN}, https://b.example.com"
    ) as process:
        yield process.wait_until_ready()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.open(nats_server.url, "test")
    yield bus
    await bus.close()


@pytest.fixture
async def http(edge: EdgeProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(edge.url) as session:
        yield session


Seen = list[tuple[str, Any, str]]


@pytest.fixture
async def echo(bus: NatsBus) -> AsyncIterator[Seen]:
    """All commands are answered with their data; what arrived: (subject, data, headers)."""
    seen: Seen = []

    def answer(subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        seen.append((subject, json.loads(payload), headers.decode()))
        bus.send(reply, payload)

    sid = bus.listen("im.v1.cmd.>", answer)
    await bus.flush()
    yield seen
    bus.unlisten(sid)
    await bus.flush()


async def failing(bus: NatsBus, error: AppError) -> Callable[[], None]:
    def answer(_subject: str, reply: str, _payload: bytes, _headers: bytes) -> None:
        bus.send(reply, error.body("t" * 32), headers=error_headers(error))

    sid = bus.listen("im.v1.cmd.>", answer)
    await bus.flush()
    return lambda: bus.unlisten(sid)


@pytest.mark.parametrize(
    ("method", "path", "body", "subject", "data"),
    [
        ("GET", "/users/me", None, "7.user.me", {}),
        ("GET", "/users/5", None, "7.user.get", {"id": 5}),
        ("GET", "/users?q=12&limit=3", None, "7.user.search", {"q": "12", "limit": 3}),
        ("GET", "/users?q=%C3%BC&unknown=1", None, "7.user.search", {"q": "ü"}),
        ("PATCH", "/users/me", {"avatar": None}, "7.user.update", {"avatar": None}),
        ("DELETE", "/users/me", {"password": "x"}, "7.user.delete", {"password": "x"}),
        ("DELETE", "/auth/sessions/ab-C_1", None, "7.auth.revoke_session", {"id": "ab-C_1"}),
        ("POST", "/auth/logout", None, "7.auth.logout", {}),
        (
            "GET", "/messages?conversation_id=p_1_2&after_seq=7&limit=200", None, "7.message.history",
            {"conversation_id": "p_1_2", "after_seq": 7, "limit": 200},
        ),
    ],
)  # fmt: skip
async def test_fields_come_from_path_query_and_body(
    http: aiohttp.ClientSession,
    echo: Seen,
    method: str,
    path: str,
    body: Any,
    subject: str,
    data: dict[str, Any],
) -> None:
    async with http.request(method, f"/api/v1{path}", json=body, headers=BEARER) as response:
        answer = await response.json()
        assert response.status == 200
        assert (answer["code"], answer["data"], len(answer["trace_id"])) == ("ok", data, 32)
    assert [(s, d) for s, d, _ in echo] == [(f"im.v1.cmd.{subject}", data)]


async def test_registration_needs_no_token_and_answers_201(
    http: aiohttp.ClientSession, echo: Seen
) -> None:
    body = {"username": "alice", "password": "long enough"}
    async with http.post("/api/v1/auth/register", json=body) as response:
        assert response.status == 201
    subject, data, headers = echo[0]
    assert (subject, data) == ("im.v1.cmd.0.auth.register", body)
    assert "Im-Session" not in headers
    assert "Im-Conn" not in headers


async def test_the_callers_trace_goes_on(http: aiohttp.ClientSession, echo: Seen) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = BEARER | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with http.get("/api/v1/users/me", headers=headers) as response:
        assert (await response.json())["trace_id"] == trace
    assert f"traceparent: 00-{trace}-" in echo[0][2]
    bad = BEARER | {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}
    async with http.get("/api/v1/users/me", headers=bad) as response:
        assert (await response.json())["trace_id"] != "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/users/1.2", None, "id"), ("GET", "/users/*", None, "id"), ("GET", "/users/%3E", None, "id"),
        ("GET", "/users/1%0d%0aPUB", None, "id"), ("GET", "/users/0", None, "id"), ("GET", "/users/-1", None, "id"),
        ("GET", "/users/" + "9" * 500, None, "id"),
        ("GET", "/users/9007199254740992", None, "id"), ("GET", "/users?q=a&limit=201", None, "limit"),
        ("GET", "/users?q=a&limit=x", None, "limit"), ("GET", "/users?q=a&q=b", None, "q"),
        ("DELETE", "/auth/sessions/a.b", None, "id"), ("DELETE", "/auth/sessions/%3E", None, "id"),
        ("POST", "/messages", b"{", None), ("POST", "/messages", b"[]", None), ("POST", "/messages", b"1", None),
        ("POST", "/messages", b"\xff\xfe", None), ("POST", "/messages", b'{"a":' * 12_000, None),
        ("POST", "/messages", b'"x"', None), ("POST", "/messages", b"null", None),
    ],
)  # fmt: skip
async def test_bad_requests(
    edge: EdgeProcess,
    http: aiohttp.ClientSession,
    echo: Seen,
    method: str,
    path: str,
    body: bytes | None,
    field: str | None,
) -> None:
    url = URL(f"{edge.url}/api/v1{path}", encoded=True)  # as written: yarl would decode %3E
    async with http.request(method, url, data=body, headers=BEARER) as response:
        answer = await response.json()
    assert (response.status, answer["code"], answer.get("field")) == (400, "bad_request", field)
    assert answer["message"]
    assert not echo


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/api/v1/nope", 404, "not_found"),
        ("GET", "/api/v1/users/a/b", 404, "not_found"),
        ("PUT", "/api/v1/users/me", 405, "bad_request"),
        ("GET", "/api/v1/auth/login", 405, "bad_request"),
        ("POST", "/healthz", 405, "bad_request"),
    ],
)
async def test_addresses_that_do_not_exist(
    http: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with http.request(method, path, headers=BEARER) as response:
        assert (response.status, (await response.json())["code"]) == (status, code)
        assert ("Allow" in response.headers) is (status == 405)


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer x", "Basic eDp5", f"Bearer {token(exp=1)}"]
)
async def test_no_valid_token(http: aiohttp.ClientSession, echo: Seen, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    async with http.get("/api/v1/users/me", headers=headers) as response:
        answer = await response.json()
        assert (response.status, answer["code"]) == (401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    async with http.get(f"/api/v1/users/me?token={token()}", headers=headers) as response:
        assert response.status == 401
    assert not echo


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(65):
        yield b"x" * 1024


@pytest.mark.parametrize("body", [b"x" * 65 * 1024, chunks], ids=["length", "chunked"])
async def test_too_large(http: aiohttp.ClientSession, body: Any) -> None:
    data = body if isinstance(body, bytes) else body()
    async with http.post("/api/v1/messages", data=data, headers=BEARER) as response:
        assert (response.status, (await response.json())["code"]) == (413, "too_large")


async def test_errors_of_functions(http: aiohttp.ClientSession, bus: NatsBus) -> None:
    for error, retry_after in (
        (Conflict("taken", field="username"), None),
        (RateLimited("slow down", retry_after_ms=2500), "3"),
        (Unavailable("later"), "1"),
    ):
        stop = await failing(bus, error)
        async with http.get("/api/v1/users/me", headers=BEARER) as response:
            answer = await response.json()
            assert (response.status, answer["code"]) == (error.status, error.code)
            assert (answer["message"], answer["trace_id"]) == (error.message, "t" * 32)
            assert response.headers.get("Retry-After") == retry_after
        stop()


async def test_nobody_serves_it(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/users/me", headers=BEARER) as response:
        assert (response.status, (await response.json())["code"]) == (503, "unavailable")
        assert response.headers["Retry-After"] == "1"


async def test_no_answer_at_the_dead_line(http: aiohttp.ClientSession, bus: NatsBus) -> None:
    bus.listen(subjects.commands_of("user.me"), lambda *_: None)
    await bus.flush()
    async with http.get("/api/v1/users/me", headers=BEARER) as response:
        assert (response.status, (await response.json())["code"]) == (504, "unknown_outcome")


async def test_cors_for_exact_origins(http: aiohttp.ClientSession) -> None:
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with http.options("/api/v1/messages", headers=ask | {"Origin": ORIGIN}) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "Origin" in response.headers["Vary"]
    for path in ("/api/v1/users/me", "/nope"):
        async with http.get(path, headers={"Origin": ORIGIN}) as response:
            assert response.status >= 400
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    stranger = {"Origin": "https://app.example.com.evil.com"}
    async with http.options("/api/v1/messages", headers=ask | stranger) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    async with http.get("/healthz", headers=stranger) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_cors_for_everybody(nats_server: NatsServer) -> None:
    with EdgeProcess(nats_server.url, IM_CORS_ORIGINS="*") as edge:
        await asyncio.to_thread(edge.wait_until_ready)
        async with (
            aiohttp.ClientSession() as http,
            http.get(edge.url + "/healthz", headers={"Origin": "null"}) as response,
        ):
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in response.headers


async def test_documents(http: aiohttp.ClientSession) -> None:
    for path, kind in (
        ("/openapi.json", "application/json"),
        ("/asyncapi.json", "application/json"),
        ("/docs", "text/html"),
    ):
        async with http.get(path) as response:
            assert (response.status, response.content_type) == (200, kind)
