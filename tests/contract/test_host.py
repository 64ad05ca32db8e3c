"""The behaviour suite of the function host: the same in process, on NATS, over HTTP, and behind a bridge.

What only a bus has (reply subjects, `$SRV`) is asked of those three that have one.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec
import pytest

from schemas.users import GetUser, User
from shared import cloudevents, subjects
from shared.adapters.memory import MemoryBus
from shared.adapters.nats import NatsBus
from shared.bus import Bus, Inbox, header, pack_headers
from shared.cloudevents import JSON, Event, Mode
from shared.errors import AppError, NotFound
from shared.function import Context, Function, Outcome, on
from shared.hosts.bridge import Bridge
from shared.hosts.cloudevents import CloudEventsHost
from shared.hosts.nats import Host
from shared.hosts.sink import Sink
from shared.hosts.web import Web
from shared.ids import now_ms, random_token
from tests.servers import NatsServer


class Answer(NamedTuple):
    """status: of an error, "" if there is none. text: of the error, as headers hold it."""

    status: str
    body: bytes
    text: str

    @property
    def data(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded


class Gates:
    """What the test's handler waits for, and what it saw."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.entered: asyncio.Queue[Context[Any]] = asyncio.Queue()


async def get_user(cmd: GetUser, ctx: Context[Gates]) -> Outcome[User]:
    ctx.deps.entered.put_nowait(ctx)
    await ctx.deps.open.wait()
    if cmd.id == 404:
        raise NotFound("no user 404", field="id")
    if cmd.id == 500:
        raise RuntimeError("secret detail")
    return Outcome(User(cmd.id, f"u{cmd.id}", f"by {ctx.user_id}"))


async def register(_cmd: object, ctx: Context[Gates]) -> Outcome[User]:
    ctx.deps.entered.put_nowait(ctx)
    return Outcome(User(1, "new", "new"))


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[Gates]:
    yield Gates()


FUNCTION = Function("profile", (on("user.get", get_user), on("auth.register", register)), lifespan)


class Served:
    """A function served on one face. `host`: the one on the bus, if there is one. `port`: of HTTP, if there is any."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.port = 0
        self._stack = AsyncExitStack()
        self._web: Web | None = None

    async def start(self, kind: str, bus: Bus, gates: Gates, max_in_flight: int = 4096) -> None:
        if kind in ("memory", "nats"):
            self.host = Host(bus, max_in_flight=max_in_flight)
            await self.host.serve(FUNCTION, gates)
            return
        bridged = kind == "bridge"
        http = CloudEventsHost(bus, max_in_flight=4096 if bridged else max_in_flight)
        self._stack.callback(http.close)
        http.serve(FUNCTION, gates)
        self._web = await self._stack.enter_async_context(Web(0))
        self._web.on_event = http.answer
        self._web.ready = lambda: ""
        self.port = self._web.port
        if bridged:
            sink = await self._stack.enter_async_context(Sink(f"http://127.0.0.1:{self.port}"))
            self.host = Host(bus, call=Bridge("profile", sink).command, max_in_flight=max_in_flight)
            await self.host.serve(FUNCTION, None)

    async def drain(self) -> None:
        if self.host is not None:
            await self.host.drain(5)
        if self._web is not None:
            await self._web.drain(5)

    async def close(self) -> None:
        await self.drain()
        await self._stack.aclose()


class Face(Protocol):
    """How a test asks a function, on whatever road."""

    served: Served

    async def ask(
        self, user: int, command: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> Answer: ...


class BusFace:
    """As the edge does: a request on the bus, with headers as in `Im-Conn`."""

    def __init__(self, bus: Bus, served: Served) -> None:
        self.served = served
        self._inbox = Inbox(bus)

    async def ask(
        self, user: int, command: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> Answer:
        block = pack_headers(headers) if headers else b""
        body, block = await self._inbox.request(subjects.command(user, command), payload, 10, block)
        return Answer(
            header(block, b"Nats-Service-Error-Code: "),
            body,
            header(block, b"Nats-Service-Error: "),
        )

    async def close(self) -> None:
        self._inbox.close()


class HttpFace:
    """As Knative does: an event in a POST, with the headers as extensions."""

    def __init__(self, served: Served, mode: Mode) -> None:
        self.served = served
        self.mode = mode
        self.http = aiohttp.ClientSession(f"http://127.0.0.1:{served.port}")

    async def ask(
        self, user: int, command: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> Answer:
        extensions = {k.lower().replace("-", ""): v for k, v in (headers or {}).items()}
        event = Event(
            id=random_token(),
            source="/tests",
            type=f"im.v1.cmd.{command}",
            subject=str(user),
            content_type=JSON,
            data=payload,
            extensions=extensions,
        )
        reply = await self.post(event)
        assert reply.extensions["causationid"] == event.id
        assert reply.subject == str(user)
        if reply.type == f"im.v1.ack.{command}":
            return Answer("", reply.data, "")
        assert reply.type == f"im.v1.error.{command}"
        text = msgspec.json.decode(reply.data)["message"]
        return Answer(reply.extensions["imstatus"], reply.data, text)

    async def post(self, event: Event) -> Event:
        mode = self.mode
        try:
            if event.data:
                msgspec.json.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            mode = "binary"  # what is no JSON cannot stand in an envelope of JSON
        headers, body = cloudevents.write(event, mode)
        async with self.http.post(
            "/", data=body, headers=headers | {"Prefer": "reply"}
        ) as response:
            content = await response.read()
            if response.status == 503:
                assert int(response.headers["Retry-After"]) > 0
                return Event(
                    id="",
                    source="",
                    type=event.type.replace("cmd", "error"),
                    subject=event.subject,
                    data=content,
                    extensions={"imstatus": "503", "causationid": event.id},
                )
            assert response.status == 200, content
            reply, came_in = cloudevents.read(response.headers, content)
            assert came_in == mode
            return reply

    async def close(self) -> None:
        await self.http.close()


@pytest.fixture(params=["memory", "nats", "bridge", "binary", "structured"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bus(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if kind in ("memory", "binary", "structured"):
        yield MemoryBus()
    else:
        server: NatsServer = request.getfixturevalue("nats_server")
        opened = await NatsBus.open(server.url, "test")
        yield opened
        await opened.close()


@pytest.fixture
def gates() -> Gates:
    return Gates()


@asynccontextmanager
async def serving(
    kind: str, bus: Bus, gates: Gates, max_in_flight: int = 4096
) -> AsyncIterator[Face]:
    served = Served()
    await served.start(kind, bus, gates, max_in_flight)
    face: BusFace | HttpFace
    if kind in ("binary", "structured"):
        face = HttpFace(served, "binary" if kind == "binary" else "structured")
    else:
        face = BusFace(bus, served)
        await bus.flush()
    try:
        yield face
    finally:
        gates.open.set()
        await served.close()
        await face.close()


@pytest.fixture
async def face(kind: str, bus: Bus, gates: Gates) -> AsyncIterator[Face]:
    async with serving(kind, bus, gates, max_in_flight=8) as opened:
        yield opened


on_a_bus = pytest.mark.parametrize("kind", ["memory", "nats", "bridge"])
over_http = pytest.mark.parametrize("kind", ["binary", "structured"])


@pytest.fixture
def host(face: Face) -> Host:
    assert face.served.host is not None
    return face.served.host


@pytest.fixture
async def inbox(bus: Bus) -> AsyncIterator[Inbox]:
    opened = Inbox(bus)
    await bus.flush()
    yield opened
    opened.close()


def ask(user_id: int) -> bytes:
    return msgspec.json.encode({"id": user_id})


async def test_success_is_the_bare_data(face: Face) -> None:
    answer = await face.ask(7, "user.get", ask(5))
    assert answer.data == {"user_id": 5, "username": "u5", "nickname": "by 7"}
    assert answer.status == ""


async def test_the_context_says_who_and_where_from(face: Face, gates: Gates) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    deadline = now_ms() + 9000
    headers = {
        "Im-Conn": "c1",
        "Im-Session": "s1",
        "traceparent": trace,
        "Im-Deadline": str(deadline),
    }
    await face.ask(7, "user.get", ask(5), headers)
    ctx = await gates.entered.get()
    assert (ctx.user_id, ctx.conn, ctx.session, ctx.traceparent) == (7, "c1", "s1", trace)
    assert ctx.deadline == deadline
    assert ctx.reply.startswith("_INBOX.")


async def test_names_that_are_no_tokens_do_not_pass(face: Face, gates: Gates) -> None:
    await face.ask(7, "user.get", ask(5), {"Im-Conn": "a.b", "Im-Session": ">"})
    ctx = await gates.entered.get()
    assert (ctx.conn, ctx.session) == ("", "")


async def test_a_business_error_carries_code_and_field(face: Face) -> None:
    answer = await face.ask(7, "user.get", ask(404))
    assert (answer.status, answer.text) == ("404", "no user 404")
    data = answer.data
    assert (data["code"], data["message"], data["field"]) == ("not_found", "no user 404", "id")


async def test_an_error_names_the_trace(face: Face) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    answer = await face.ask(7, "user.get", ask(404), {"traceparent": trace})
    assert answer.data["trace_id"] == "a" * 32


async def test_a_defect_shows_nothing_of_the_inside(
    face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await face.ask(7, "user.get", ask(500))
    assert (answer.status, answer.data["code"]) == ("500", "internal")
    assert "secret" not in answer.text + answer.data["message"]
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b"{", None),
        (b"\xff\xfe", None),
        (b"[]", None),
        (b'{"id":"five"}', "id"),
        (b'{"id":-1}', "id"),
        (b'{"id":99999999999999999999999}', "id"),
        (b"{}", "id"),
        (b"[" * 100_000, None),
        (b'{"x":' * 50_000, None),
    ],
)
async def test_rubbish_is_a_bad_request(face: Face, payload: bytes, field: str | None) -> None:
    answer = await face.ask(7, "user.get", payload)
    data = answer.data
    assert (answer.status, data["code"], data.get("field")) == ("400", "bad_request", field)


async def test_nobody_may_only_do_what_nobody_may(face: Face, gates: Gates) -> None:
    answer = await face.ask(0, "user.get", ask(5))
    assert (answer.status, answer.data["code"]) == ("401", "unauthenticated")
    account = b'{"username":"a","password":"12345678"}'
    answer = await face.ask(7, "auth.register", account)
    assert (answer.status, answer.data["code"]) == ("400", "bad_request")
    assert gates.entered.empty()
    answer = await face.ask(0, "auth.register", account)
    assert answer.data["username"] == "new"


@pytest.mark.parametrize("deadline", ["soon", "-1", "9" * 5000, "٣"])
async def test_a_dead_line_that_is_none_does_not_count(face: Face, deadline: str) -> None:
    answer = await face.ask(7, "user.get", ask(6), {"Im-Deadline": deadline})
    assert answer.status == ""


async def test_more_than_it_can_hold_is_told_at_once(face: Face, gates: Gates) -> None:
    gates.open.clear()
    running = [asyncio.ensure_future(face.ask(7, "user.get", ask(5))) for _ in range(8)]
    for _ in range(8):
        await gates.entered.get()
    answer = await face.ask(7, "user.get", ask(5))
    data = answer.data
    assert (answer.status, data["code"], data["retry_after_ms"] > 0) == ("503", "unavailable", True)
    gates.open.set()
    assert all(answer.data["user_id"] == 5 for answer in await asyncio.gather(*running))


async def test_draining_answers_all_that_had_arrived(kind: str, bus: Bus, gates: Gates) -> None:
    async with serving(kind, bus, gates) as face:
        gates.open.clear()
        running = [asyncio.ensure_future(face.ask(7, "user.get", ask(i + 1))) for i in range(100)]
        for _ in range(1 if kind in ("memory", "nats") else 100):
            await gates.entered.get()
        draining = asyncio.ensure_future(face.served.drain())
        await bus.flush()
        gates.open.set()
        await draining
        answers = await asyncio.gather(*running)
        assert [answer.data["user_id"] for answer in answers] == list(range(1, 101))
        with pytest.raises((AppError, aiohttp.ClientConnectorError)):
            await face.ask(7, "user.get", ask(5))


@pytest.mark.parametrize(
    "reply",
    [
        "im.v1.user.9",
        "_INBOX.u.9.a",
        "_INBOX.e.short.1",
        "_INBOX.e." + "a" * 22,
        "elsewhere",
        "im.v1.cmd.9.user.delete",
    ],
)
@on_a_bus
async def test_an_answer_never_goes_to_a_foreign_subject(
    host: Host, bus: Bus, inbox: Inbox, gates: Gates, reply: str
) -> None:
    leaked: list[str] = []
    bus.listen(reply, lambda subject, *_: leaked.append(subject))
    await bus.flush()
    bus.send(subjects.command(7, "user.get"), ask(5), reply)
    await inbox.request(subjects.command(7, "user.get"), ask(6), 10)  # a fence: it comes after
    assert leaked == []
    assert host.stats.foreign_reply == 1
    assert gates.entered.qsize() == 1


@on_a_bus
async def test_an_integrator_is_answered_in_his_own_inbox(host: Host, bus: Bus) -> None:
    own = Inbox(bus, f"{subjects.USER_INBOX}7.")
    await bus.flush()
    body, _ = await own.request(subjects.command(7, "user.get"), ask(5), 10)
    assert msgspec.json.decode(body)["nickname"] == "by 7"
    own.close()


@on_a_bus
@pytest.mark.parametrize("token", ["seven", "-1", "007", "1" * 30])
async def test_a_subject_without_a_user_is_dropped(
    host: Host, bus: Bus, inbox: Inbox, gates: Gates, token: str
) -> None:
    bus.send(f"im.v1.cmd.{token}.user.get", ask(5), "_INBOX.e." + "a" * 22 + ".1")
    await inbox.request(subjects.command(7, "user.get"), ask(6), 10)
    assert host.stats.bad_subject == 1
    assert gates.entered.qsize() == 1


@on_a_bus
async def test_past_its_dead_line_a_command_is_not_done(
    host: Host, bus: Bus, inbox: Inbox, gates: Gates
) -> None:
    bus.send(
        subjects.command(7, "user.get"),
        ask(5),
        headers=pack_headers({"Im-Deadline": str(now_ms() - 1)}),
    )
    await inbox.request(subjects.command(7, "user.get"), ask(6), 10)
    assert host.stats.late == 1
    assert gates.entered.qsize() == 1


@on_a_bus
async def test_a_command_without_a_reply_is_done(host: Host, bus: Bus, gates: Gates) -> None:
    bus.send(subjects.command(7, "user.get"), ask(5))
    ctx = await gates.entered.get()
    assert ctx.user_id == 7
    assert not subjects.reply_allowed(ctx.reply, 7)


@on_a_bus
async def test_it_answers_the_questions_of_a_nats_service(host: Host, inbox: Inbox) -> None:
    await inbox.request(subjects.command(7, "user.get"), ask(5), 10)
    await inbox.request(subjects.command(7, "user.get"), ask(404), 10)
    ping = msgspec.json.decode((await inbox.request("$SRV.PING.profile", b"", 10))[0])
    assert (ping["type"], ping["name"]) == ("io.nats.micro.v1.ping_response", "profile")
    info = msgspec.json.decode((await inbox.request(f"$SRV.INFO.profile.{ping['id']}", b"", 10))[0])
    assert info["endpoints"][0]["subject"] == "im.v1.cmd.*.user.get"
    assert info["endpoints"][0]["queue_group"] == "profile"
    stats = msgspec.json.decode((await inbox.request("$SRV.STATS.profile", b"", 10))[0])
    endpoint = stats["endpoints"][0]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (2, 1)
    assert endpoint["last_error"].startswith("404:")
    assert endpoint["processing_time"] > 0


@over_http
@pytest.mark.parametrize("user", ["seven", "-1", "007", "1" * 30, ""])
async def test_an_event_without_a_user_is_malformed(
    face: HttpFace, gates: Gates, user: str
) -> None:
    event = Event(id="1", source="/t", type="im.v1.cmd.user.get", subject=user, data=ask(5))
    headers, body = cloudevents.write(event, face.mode)
    async with face.http.post("/", data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["code"] == "bad_request"
    assert gates.entered.empty()


@over_http
async def test_past_its_dead_line_nobody_can_know(face: Face, gates: Gates) -> None:
    answer = await face.ask(7, "user.get", ask(5), {"Im-Deadline": str(now_ms() - 1)})
    assert (answer.status, answer.data["code"]) == ("504", "unknown_outcome")
    assert gates.entered.empty()


@pytest.mark.parametrize("kind", ["bridge"])
async def test_a_time_out_behind_the_bridge_is_told(face: Face, gates: Gates) -> None:
    gates.open.clear()
    answer = await face.ask(7, "user.get", ask(5), {"Im-Deadline": str(now_ms() + 300)})
    assert (answer.status, answer.data["code"]) == ("504", "unknown_outcome")
    gates.open.set()


@over_http
async def test_after_the_drain_nothing_is_begun(face: Face, gates: Gates) -> None:
    await face.ask(7, "user.get", ask(5))
    await gates.entered.get()
    await face.served.drain()
    answer = await face.ask(7, "user.get", ask(5))  # on the connection that is still open
    assert (answer.status, answer.data["code"]) == ("503", "unavailable")
    assert gates.entered.empty()
