"""The behaviour suite of the function host: the same on the in-memory bus and on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from schemas.users import GetUser, User
from shared import subjects
from shared.adapters.memory import MemoryBus
from shared.adapters.nats import NatsBus
from shared.bus import Bus, Inbox, header, pack_headers
from shared.errors import AppError, NotFound
from shared.function import Context, Function, Outcome, on
from shared.hosts.nats import Host
from shared.ids import now_ms
from tests.servers import NatsServer


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


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus()
    else:
        server: NatsServer = request.getfixturevalue("nats_server")
        opened = await NatsBus.open(server.url, "test")
        yield opened
        await opened.close()


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
async def host(bus: Bus, gates: Gates) -> AsyncIterator[Host]:
    opened = Host(bus, max_in_flight=8)
    await opened.serve(FUNCTION, gates)
    yield opened
    gates.open.set()
    await opened.drain(5)


@pytest.fixture
async def inbox(bus: Bus) -> AsyncIterator[Inbox]:
    opened = Inbox(bus)
    await bus.flush()
    yield opened
    opened.close()


def ask(user_id: int) -> bytes:
    return msgspec.json.encode({"id": user_id})


async def error_of(inbox: Inbox, subject: str, payload: bytes) -> tuple[str, dict[str, Any], str]:
    body, headers = await inbox.request(subject, payload, 10)
    return (
        header(headers, b"Nats-Service-Error-Code: "),
        msgspec.json.decode(body),
        header(headers, b"Nats-Service-Error: "),
    )


async def test_success_is_the_bare_data(host: Host, inbox: Inbox) -> None:
    body, headers = await inbox.request(subjects.command(7, "user.get"), ask(5), 10)
    assert msgspec.json.decode(body) == {"user_id": 5, "username": "u5", "nickname": "by 7"}
    assert headers == b""
    assert host.in_flight == 0


async def test_the_context_says_who_and_where_from(host: Host, inbox: Inbox, gates: Gates) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
    block = pack_headers(
        {
            "Im-Conn": "c1",
            "Im-Session": "s1",
            "traceparent": trace,
            "Im-Deadline": str(now_ms() + 9000),
        }
    )
    await inbox.request(subjects.command(7, "user.get"), ask(5), 10, block)
    ctx = await gates.entered.get()
    assert (ctx.user_id, ctx.conn, ctx.session, ctx.traceparent) == (7, "c1", "s1", trace)
    assert ctx.reply.startswith("_INBOX.e.")


async def test_a_business_error_carries_code_and_field(host: Host, inbox: Inbox) -> None:
    status, body, text = await error_of(inbox, subjects.command(7, "user.get"), ask(404))
    assert (status, text) == ("404", "no user 404")
    assert (body["code"], body["message"], body["field"]) == ("not_found", "no user 404", "id")


async def test_a_defect_shows_nothing_of_the_inside(
    host: Host, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    status, body, text = await error_of(inbox, subjects.command(7, "user.get"), ask(500))
    assert (status, body["code"]) == ("500", "internal")
    assert "secret" not in text + body["message"]
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
        (b"{}", None),
        (b"[" * 100_000, None),
        (b'{"x":' * 50_000, None),
    ],
)
async def test_rubbish_is_a_bad_request(
    host: Host, inbox: Inbox, payload: bytes, field: str | None
) -> None:
    status, body, _ = await error_of(inbox, subjects.command(7, "user.get"), payload)
    assert (status, body["code"], body.get("field")) == ("400", "bad_request", field)


async def test_nobody_may_only_do_what_nobody_may(host: Host, inbox: Inbox, gates: Gates) -> None:
    status, body, _ = await error_of(inbox, subjects.command(0, "user.get"), ask(5))
    assert (status, body["code"]) == ("401", "unauthenticated")
    status, body, _ = await error_of(
        inbox, subjects.command(7, "auth.register"), b'{"username":"a","password":"12345678"}'
    )
    assert (status, body["code"]) == ("400", "bad_request")
    assert gates.entered.empty()
    body_, _ = await inbox.request(
        subjects.command(0, "auth.register"), b'{"username":"a","password":"12345678"}', 10
    )
    assert msgspec.json.decode(body_)["username"] == "new"


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


async def test_an_integrator_is_answered_in_his_own_inbox(host: Host, bus: Bus) -> None:
    own = Inbox(bus, f"{subjects.USER_INBOX}7.")
    await bus.flush()
    body, _ = await own.request(subjects.command(7, "user.get"), ask(5), 10)
    assert msgspec.json.decode(body)["nickname"] == "by 7"
    own.close()


@pytest.mark.parametrize("token", ["seven", "-1", "007", "1" * 30])
async def test_a_subject_without_a_user_is_dropped(
    host: Host, bus: Bus, inbox: Inbox, gates: Gates, token: str
) -> None:
    bus.send(f"im.v1.cmd.{token}.user.get", ask(5), "_INBOX.e." + "a" * 22 + ".1")
    await inbox.request(subjects.command(7, "user.get"), ask(6), 10)
    assert host.stats.bad_subject == 1
    assert gates.entered.qsize() == 1


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


@pytest.mark.parametrize("deadline", ["soon", "-1", "9" * 5000, "٣"])
async def test_a_dead_line_that_is_none_does_not_count(
    host: Host, inbox: Inbox, deadline: str
) -> None:
    headers = pack_headers({"Im-Deadline": deadline})
    _, block = await inbox.request(subjects.command(7, "user.get"), ask(6), 10, headers)
    assert block == b""


async def test_a_command_without_a_reply_is_done(host: Host, bus: Bus, gates: Gates) -> None:
    bus.send(subjects.command(7, "user.get"), ask(5))
    assert (await gates.entered.get()).reply == ""


async def test_more_than_it_can_hold_is_told_at_once(
    host: Host, inbox: Inbox, gates: Gates
) -> None:
    gates.open.clear()
    running = [
        asyncio.ensure_future(inbox.request(subjects.command(7, "user.get"), ask(5), 10))
        for _ in range(8)
    ]
    for _ in range(8):
        await gates.entered.get()
    status, body, _ = await error_of(inbox, subjects.command(7, "user.get"), ask(5))
    assert (status, body["code"], body["retry_after_ms"] > 0) == ("503", "unavailable", True)
    gates.open.set()
    assert all(msgspec.json.decode(b)["user_id"] == 5 for b, _ in await asyncio.gather(*running))


async def test_draining_answers_all_that_had_arrived(bus: Bus, inbox: Inbox, gates: Gates) -> None:
    host = Host(bus)
    await host.serve(FUNCTION, gates)
    gates.open.clear()
    running = [
        asyncio.ensure_future(inbox.request(subjects.command(7, "user.get"), ask(i + 1), 10))
        for i in range(100)
    ]
    await gates.entered.get()
    draining = asyncio.ensure_future(host.drain(10))
    await bus.flush()
    gates.open.set()
    await draining
    answers = await asyncio.gather(*running)
    assert [msgspec.json.decode(body)["user_id"] for body, _ in answers] == list(range(1, 101))
    body, headers = b"", b""
    with pytest.raises(AppError):
        body, headers = await inbox.request(subjects.command(7, "user.get"), ask(5), 10)
    assert (body, headers) == (b"", b"")


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
