"""The bridge on a real nats-server, before sinks of all manners."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from aiohttp import web

from laptop.ports import free_ports
from shared import cloudevents, subjects
from shared.adapters.event_stream import ensure_event_stream
from shared.adapters.jetstream import publish
from shared.adapters.nats import NatsBus
from shared.bus import Inbox, header, pack_headers
from shared.cloudevents import JSON, Event
from shared.hosts.bridge import Bridging
from shared.hosts.sink import Sink
from shared.ids import now_ms
from shared.settings import Settings
from tests import servers
from tests.servers import NatsServer

OnPost = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeSink:
    """An HTTP server that does what a test says, and keeps what came."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.on_post: OnPost = self.ack
        self.headers: list[dict[str, str]] = []

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._post)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        self.url = f"http://127.0.0.1:{(port := free_ports(1)[0])}"
        await web.TCPSite(self.runner, "127.0.0.1", port).start()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        event, _ = cloudevents.read(request.headers, await request.read())
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        self.events.put_nowait(event)
        return await self.on_post(request)

    async def ack(self, request: web.Request) -> web.StreamResponse:
        event, _ = cloudevents.read(request.headers, await request.read())
        kind = event.type.replace(".cmd.", ".ack.")
        reply = Event(id="r", source="/s", type=kind, content_type=JSON, data=b'{"user_id":5}')
        headers, body = cloudevents.write(reply)
        return web.Response(headers=headers, body=body)


@pytest.fixture
async def sink() -> AsyncIterator[FakeSink]:
    opened = FakeSink()
    await opened.start()
    yield opened
    await opened.runner.cleanup()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    opened = await NatsBus.open(nats_server.url, "test")
    yield opened
    await opened.close()


@pytest.fixture
async def inbox(bus: NatsBus) -> AsyncIterator[Inbox]:
    opened = Inbox(bus)
    yield opened
    opened.close()


@pytest.fixture
async def bridge(bus: NatsBus, sink: FakeSink) -> AsyncIterator[Bridging]:
    async with Sink(sink.url, {"tenant": "öne 100%"}) as opened:
        bridging = await Bridging.start("profile", bus, opened, (), 8)
        yield bridging
        await bridging.drain(5)


async def ask(inbox: Inbox, timeout_ms: int = 9000) -> tuple[str, dict[str, object]]:
    """Status of the error ("" if none) and the answer to one command."""
    headers = {"Im-Deadline": str(now_ms() + timeout_ms), "Im-Conn": "c1"}
    body, block = await inbox.request(
        subjects.command(7, "user.get"), b'{"id":5}', 10, pack_headers(headers)
    )
    return header(block, b"Nats-Service-Error-Code: "), msgspec.json.decode(body)


async def test_the_event_says_what_the_headers_said(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    assert await ask(inbox) == ("", {"user_id": 5})
    event = await sink.events.get()
    assert (event.type, event.subject, event.data) == ("im.v1.cmd.user.get", "7", b'{"id":5}')
    assert event.source == "/natterjack/bridge/profile"
    assert event.extensions["imconn"] == "c1"
    assert int(event.extensions["imdeadline"]) > now_ms()
    assert event.extensions["tenant"] == "öne 100%"
    assert sink.headers[0]["prefer"] == "reply"


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (503, "", "unavailable"),
        (503, "no healthy upstream", "unavailable"),
        (
            503,
            "disconnect/reset before headers. reset reason: connection failure",
            "unavailable",
        ),
        (
            503,
            "disconnect/reset before headers. reset reason: connection termination",
            "unknown_outcome",
        ),
        (404, "", "unavailable"),
        (429, "", "unavailable"),
        (413, "", "too_large"),
        (400, "", "internal"),
        (500, "", "unknown_outcome"),
        (502, "", "unknown_outcome"),
        (504, "", "unknown_outcome"),
        (408, "", "unknown_outcome"),
        (200, "", "unknown_outcome"),
        (202, "", "unknown_outcome"),
        (307, "", "unknown_outcome"),
    ],
)
async def test_a_response_without_an_answer(
    bridge: Bridging, sink: FakeSink, inbox: Inbox, status: int, text: str, code: str
) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={"Location": sink.url})

    sink.on_post = refuse
    assert (await ask(inbox))[1]["code"] == code
    assert sink.events.qsize() == 1


async def test_nobody_listens_at_the_sink(bridge: Bridging, sink: FakeSink, inbox: Inbox) -> None:
    await sink.runner.cleanup()
    status, body = await ask(inbox)
    assert (status, body["code"]) == ("503", "unavailable")


async def test_the_connection_breaks_on_the_way(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    sink.on_post = break_off
    assert (await ask(inbox))[1]["code"] == "unknown_outcome"
    assert sink.events.qsize() == 1, "a POST is never repeated"


async def test_no_answer_until_the_dead_line(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    released = asyncio.Event()

    async def hang(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    sink.on_post = hang
    status, body = await ask(inbox, timeout_ms=300)
    assert (status, body["code"]) == ("504", "unknown_outcome")
    released.set()


async def test_an_answer_to_another_command_is_none(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    async def other(_request: web.Request) -> web.StreamResponse:
        reply = Event(id="r", source="/s", type="im.v1.ack.user.me", data=b"{}")
        headers, body = cloudevents.write(reply)
        return web.Response(headers=headers, body=body)

    sink.on_post = other
    assert (await ask(inbox))[1]["code"] == "unknown_outcome"


async def test_an_error_event_of_rubbish_is_a_defect(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    async def rubbish(_request: web.Request) -> web.StreamResponse:
        reply = Event(id="r", source="/s", type="im.v1.error.user.get", data=b"<secret>")
        headers, body = cloudevents.write(reply)
        return web.Response(headers=headers, body=body)

    sink.on_post = rubbish
    status, body = await ask(inbox)
    assert (status, body["code"]) == ("500", "internal")
    assert "secret" not in str(body)


async def test_an_error_of_a_later_version_passes(
    bridge: Bridging, sink: FakeSink, inbox: Inbox
) -> None:
    async def later(_request: web.Request) -> web.StreamResponse:
        error = b'{"code":"too_tired","message":"tomorrow","hint":1}'
        reply = Event(
            id="r",
            source="/s",
            type="im.v1.error.user.get",
            data=error,
            extensions={"imstatus": "418"},
        )
        headers, body = cloudevents.write(reply)
        return web.Response(headers=headers, body=body)

    sink.on_post = later
    assert await ask(inbox) == ("418", {"code": "too_tired", "message": "tomorrow", "hint": 1})


async def test_facts_are_acknowledged_after_a_success_only(sink: FakeSink) -> None:
    tries: dict[str, int] = {}

    async def reluctant(request: web.Request) -> web.StreamResponse:
        event, _ = cloudevents.read(request.headers, await request.read())
        tries[event.id] = tries.get(event.id, 0) + 1
        first = tries[event.id] == 1
        return web.Response(status=(500 if int(event.id[-1]) % 2 else 404) if first else 204)

    sink.on_post = reluctant
    with servers.serve("nats-server", servers.nats) as server:
        await ensure_event_stream(Settings.load({"IM_NATS_URL": server.url}))
        bus = await NatsBus.open(server.url, "test")
        inbox = Inbox(bus, subjects.FUNCTION_INBOX)
        async with Sink(sink.url) as opened:
            bridging = await Bridging.start("translate", bus, opened, ("message.sent",), 4)
            assert bridging.facts is not None
            await bridging.facts.ready.wait()
            for i in range(10):
                payload = b'{"type":"message.sent","id":"f%d"}' % i
                headers = pack_headers({"Nats-Msg-Id": f"f{i}"})
                await publish(inbox, "im.v1.evt.message.sent", payload, headers)
            await publish(inbox, "im.v1.evt.user.deleted", b"{}")  # not what it follows
            seen: dict[str, Event] = {}
            async with asyncio.timeout(30):
                while len(tries) < 10 or min(tries.values()) < 2:
                    event = await sink.events.get()
                    assert event.type == "im.v1.evt.message.sent"
                    seen[event.id] = event
                # As it stands in the stream.
                assert seen["f3"].data == b'{"type":"message.sent","id":"f3"}'
                while (await pending(inbox)) != (0, 0):
                    await asyncio.sleep(0.02)
            assert set(tries.values()) == {2}
            # Another one goes on where the first one ended.
            await bridging.drain(5)
            await publish(
                inbox, "im.v1.evt.message.sent", b"{}", pack_headers({"Nats-Msg-Id": "f10"})
            )
            bridging = await Bridging.start("translate", bus, opened, ("message.sent",), 4)
            async with asyncio.timeout(30):
                while tries.get("f10") != 2:
                    await sink.events.get()
                    await asyncio.sleep(0)
            await bridging.drain(5)
            assert sum(tries.values()) == 22
        inbox.close()
        await bus.close()


async def pending(inbox: Inbox) -> tuple[int, int]:
    """Facts that are not acknowledged, and not delivered yet."""
    body, _ = await inbox.request("$JS.API.CONSUMER.INFO.IM_EVT.translate", b"", 5)
    info = msgspec.json.decode(body)
    return info["num_ack_pending"], info["num_pending"]
