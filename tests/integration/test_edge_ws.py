"""A real edge process on a real nats-server, driven over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from edge import frames
from schemas.messages import MessageAck, SendMessage
from shared import subjects
from shared.adapters.nats import NatsBus
from shared.bus import pack_headers
from shared.errors import Conflict
from shared.function import Context, Function, Outcome, on
from shared.hosts.nats import Host
from shared.ids import now_ms
from tests.edge import (
    Client,
    EdgeProcess,
    RawSocket,
    client_frame,
    connect,
    handshake,
    token,
)
from tests.servers import NatsServer
from tests.support import until


@pytest.fixture(scope="module")
def edge(nats_server: NatsServer) -> Iterator[EdgeProcess]:
    with EdgeProcess(nats_server.url) as process:
        yield process.wait_until_ready()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.open(nats_server.url, "test")
    yield bus
    await bus.close()


async def send(cmd: SendMessage, ctx: Context[None]) -> Outcome[MessageAck]:
    if cmd.content == "conflict":
        raise Conflict("another content", field="content")
    return Outcome(MessageAck("1", cmd.client_msg_id, f"p_{ctx.user_id}_9", 1, ctx.at))


@asynccontextmanager
async def no_deps(_resources: object) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def served(bus: NatsBus) -> AsyncIterator[NatsBus]:
    """message.send is served by a real host."""
    host = Host(bus)
    await host.serve(Function("send", (on("message.send", send),), no_deps), None)
    yield bus
    await host.drain()


async def serve(bus: NatsBus, command: str, answer: Callable[[str, bytes, bytes], None]) -> None:
    """`answer(reply, payload, headers)` for every request of one command."""
    bus.listen(
        subjects.commands_of(command), lambda _, reply, body, head: answer(reply, body, head)
    )
    await bus.flush()


SEND = (
    '{"type":"message.send","id":"m1","data":{"client_msg_id":"c1","content":"%s","receiver_id":9}}'
)


async def test_a_command_over_the_socket(edge: EdgeProcess, served: NatsBus) -> None:
    async with connect(edge.url) as client:
        assert client.ready["user_id"] == 7
        assert client.ready["heartbeat_s"] == 25
        ack = await client.ask(SEND % "hello")
        assert (ack["type"], ack["id"]) == ("ack", "m1")
        assert (ack["data"]["conversation_id"], ack["data"]["client_msg_id"]) == ("p_7_9", "c1")
        alias = await client.ask((SEND % "hello").replace("message.send", "message"))
        assert alias["type"] == "ack"


async def test_a_functions_error(edge: EdgeProcess, served: NatsBus) -> None:
    async with connect(edge.url) as client:
        error = await client.ask(SEND % "conflict")
        assert len(error.pop("trace_id")) == 32
        assert error == {
            "type": "error", "id": "m1", "code": "conflict", "message": "another content", "field": "content",
        }  # fmt: skip
        bad = await client.ask('{"type":"message.send","id":2,"data":[1]}')
        assert (bad["code"], bad["id"]) == ("bad_request", 2)
        await client.alive()


async def test_what_a_function_is_told(edge: EdgeProcess, bus: NatsBus) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def answer(reply: str, payload: bytes, headers: bytes) -> None:
        seen.append((payload, headers))
        assert subjects.reply_allowed(reply, 7)
        bus.send(reply, b"{}")

    await serve(bus, "message.history", answer)
    before = now_ms()
    async with connect(edge.url) as client:
        await client.ask('{"type":"message.history","data":{"a": "ü"}}')
        payload, block = seen[0]
        assert payload == '{"a": "ü"}'.encode()
        lines = block.decode().split("\r\n")
        assert lines[0] == "NATS/1.0"
        headers = dict(line.split(": ") for line in lines[1:] if line)
        assert headers["Im-Conn"] == client.ready["connection_id"]
        assert headers["Im-Session"] == "s1"
        assert before + 5000 <= int(headers["Im-Deadline"]) <= now_ms() + 5000
        version, trace, span, flags = headers["traceparent"].split("-")
        assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")


async def test_nobody_serves_it(edge: EdgeProcess) -> None:
    async with connect(edge.url) as client:
        error = await client.ask('{"type":"user.search","id":1}')
        assert (error["code"], error["id"]) == ("unavailable", 1)


async def test_no_answer_at_the_dead_line(edge: EdgeProcess, bus: NatsBus) -> None:
    await serve(bus, "message.sync", lambda *_: None)
    async with connect(edge.url) as client:
        error = await client.ask('{"type":"message.sync","id":1}')
        assert (error["code"], error["id"]) == ("unknown_outcome", 1)


async def test_too_many_in_flight(edge: EdgeProcess, bus: NatsBus) -> None:
    replies: list[str] = []
    await serve(bus, "user.me", lambda reply, *_: replies.append(reply))
    async with connect(edge.url) as client:
        for i in range(70):
            await client.ws.send_str(json.dumps({"type": "user.me", "id": i}))
        refused = [await client.next() for _ in range(6)]
        assert {r["code"] for r in refused} == {"rate_limited"}
        assert [r["id"] for r in refused] == list(range(64, 70))
        await until(lambda: len(replies) == 64)
        for reply in replies:
            bus.send(reply, b'{"n":1}')
        assert sorted([(await client.next())["id"] for _ in range(64)]) == list(range(64))


async def test_devices_of_a_user(edge: EdgeProcess, bus: NatsBus) -> None:
    async with (
        connect(edge.url) as phone,
        connect(edge.url) as tablet,
        connect(edge.url, token(8)) as other,
    ):
        event = b'{"type":"message","data":{"content":"hi"}}'
        headers = pack_headers({"Im-Conn": phone.ready["connection_id"]})
        bus.send(subjects.user(7), event, headers=headers)
        assert await tablet.next() == json.loads(event)
        await phone.alive()
        await other.alive()


async def test_nothing_after_ready_is_missed(edge: EdgeProcess, bus: NatsBus) -> None:
    """Many at once, each pushed to the moment it says `ready`."""

    async def one(user_id: int) -> None:
        async with connect(edge.url, token(user_id)) as client:
            bus.send(subjects.user(user_id), b'{"type":"message","data":{"to":%d}}' % user_id)
            assert (await client.next())["data"] == {"to": user_id}

    await asyncio.gather(*(one(user_id) for user_id in range(1000, 1200)))


async def test_kicked(edge: EdgeProcess, bus: NatsBus) -> None:
    async with connect(edge.url) as gone, connect(edge.url, token(sid="s2")) as stays:
        kicked = b'{"type":"kicked","data":{"session_id":"s1","reason":"logout"}}'
        bus.send(subjects.user(7), kicked)
        assert await gone.next() == json.loads(kicked)
        assert await gone.close_code() == 4409
        await stays.alive()


async def test_the_server_ends_the_connection_when_both_have_said_close(
    edge: EdgeProcess, bus: NatsBus
) -> None:
    kicked = b'{"type":"kicked","data":{"session_id":"s1","reason":"logout"}}'
    for ours_first in (True, False):
        async with await RawSocket.open(edge.port, token()) as raw:
            await raw.text()
            if ours_first:
                bus.send(subjects.user(7), kicked)
                assert await raw.close_code() == 4409
                raw.send(client_frame(frames.CLOSE, (4409).to_bytes(2)))
            else:
                raw.send(client_frame(frames.CLOSE, (1000).to_bytes(2)))
                assert await raw.close_code() == 1000
            await raw.ends()


async def test_first_frame_auth(edge: EdgeProcess, served: NatsBus) -> None:
    async with connect(edge.url, "", ready=False) as client:
        ready = await client.ask(json.dumps({"type": "auth", "data": {"token": token()}}))
        assert ready["type"] == "ready"
        assert (await client.ask(SEND % "x"))["type"] == "ack"


async def test_header_auth(edge: EdgeProcess) -> None:
    headers = {"Authorization": f"Bearer {token()}"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(edge.url + "/ws", headers=headers) as ws,
    ):
        assert (await Client(ws).next())["type"] == "ready"


async def test_no_auth_frame_in_time(edge: EdgeProcess) -> None:
    async with connect(edge.url, "", ready=False) as silent:
        assert (await silent.next())["code"] == "unauthenticated"
        assert await silent.close_code() == 4401


@pytest.mark.parametrize("bad", ["nonsense", "a.b.c", token(exp=1), token(secret="x" * 64)])
async def test_bad_tokens(edge: EdgeProcess, bad: str) -> None:
    async with connect(edge.url, bad, ready=False) as by_url:
        assert (await by_url.next())["code"] == "unauthenticated"
        assert await by_url.close_code() == 4401
    async with connect(edge.url, "", ready=False) as by_frame:
        error = await by_frame.ask(json.dumps({"type": "auth", "id": 1, "data": {"token": bad}}))
        assert (error["code"], error["id"]) == ("unauthenticated", 1)
        assert await by_frame.close_code() == 4401


BAD_TEXTS = [
    "{", "[]", '{"type":1}', '{"type":"x","id":{}}', '{"type":"message","data":{"a":' + "[" * 30_000 + "}}",
    '{"type":"nope"}', '{"type":"im.v1.>"}', '{"type":"message.*"}', '{"type":"a\\r\\nPUB x 0\\r\\n"}',
    '{"type":"message.send","id":' + "9" * 400 + "}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TEXTS, ids=range(len(BAD_TEXTS)))
async def test_bad_texts_harm_nobody(edge: EdgeProcess, text: str) -> None:
    async with connect(edge.url) as client, connect(edge.url, token(8)) as other:
        assert (await client.ask(text))["code"] == "bad_request"
        await client.alive()
        await other.alive()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(frames.TEXT, b"x" * 65 * 1024), 1009),
        (client_frame(frames.TEXT, b'{"type":"\xff"}'), 1007),
        (client_frame(frames.TEXT, b"{}", masked=False), 1002),
        (b"\xff\xff\xff\xff\xff", 1002),
        (client_frame(frames.TEXT, b"x", fin=False) + client_frame(frames.TEXT, b"y"), 1002),
    ],
    ids=["too large", "not UTF-8", "not masked", "rubbish", "fragments"],
)
async def test_broken_frames_close(edge: EdgeProcess, data: bytes, code: int) -> None:
    async with connect(edge.url, token(8)) as other:
        async with await RawSocket.open(edge.port, token()) as raw:
            assert (await raw.text())["type"] == "ready"
            raw.send(data)
            assert await raw.close_code() == code
        await other.alive()


async def test_binary_is_refused_and_the_connection_stays(edge: EdgeProcess) -> None:
    async with connect(edge.url) as client:
        await client.ws.send_bytes(b"\x00\x01")
        error = await client.next()
        assert (error["code"], error["id"]) == ("bad_request", None)
        await client.alive()


async def test_frames_right_behind_the_handshake(edge: EdgeProcess) -> None:
    auth = json.dumps({"type": "auth", "data": {"token": token()}}).encode()
    ping = client_frame(frames.TEXT, b'{"type":"ping","id":1}')
    behind = client_frame(frames.TEXT, auth) + ping
    async with await RawSocket.open(edge.port, "", behind) as raw:
        got = [await raw.text(), await raw.text()]
        assert sorted(f["type"] for f in got) == ["ack", "ready"]


async def test_a_handshake_in_pieces(edge: EdgeProcess) -> None:
    request = handshake(f"?token={token()}")
    async with RawSocket(*await asyncio.open_connection("127.0.0.1", edge.port)) as raw:
        raw.send(request[:30])
        assert edge.status("/healthz") == 200, "the first piece must have come alone"
        raw.send(request[30:])
        await raw.shaken()
        assert (await raw.text())["type"] == "ready"


async def test_a_handshake_behind_another_request(edge: EdgeProcess) -> None:
    """As from a proxy that keeps its connections."""
    ping = client_frame(frames.TEXT, b'{"type":"ping","id":1}')
    async with RawSocket(*await asyncio.open_connection("127.0.0.1", edge.port)) as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await raw.reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        raw.send(handshake(f"?token={token()}") + ping)
        await raw.shaken()
        got = [await raw.text(), await raw.text()]
        assert sorted(f["type"] for f in got) == ["ack", "ready"]


async def test_protocol_pings_are_answered(edge: EdgeProcess) -> None:
    async with await RawSocket.open(edge.port, token()) as raw:
        await raw.text()
        raw.send(client_frame(frames.PING, b"are you there"))
        assert await raw.next() == frames.Message(frames.PONG, b"are you there")


@pytest.mark.parametrize(
    ("headers", "names"),
    [
        ({}, "upgrade"),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, "upgrade"),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "12"}, "13"),
        (
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": "short"}, "Key",
        ),
    ],
)  # fmt: skip
async def test_what_is_no_handshake(edge: EdgeProcess, headers: dict[str, str], names: str) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(edge.url + "/ws", headers=headers) as response,
    ):
        body: dict[str, Any] = await response.json()
        assert (response.status, body["code"]) == (400, "bad_request")
        assert names in body["message"]


async def test_a_slow_client_is_closed_and_the_others_notice_nothing(
    edge: EdgeProcess, bus: NatsBus
) -> None:
    async with (
        connect(edge.url) as fast,
        await RawSocket.open(edge.port, token(), limit=1024) as slow,
    ):
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        event = b'{"type":"message","data":{"x":"%b"}}' % (b"x" * 60_000)
        seen = 0
        while "im_edge_slow_clients_total 0.0" in await metrics(edge):
            for _ in range(16):
                bus.send(subjects.user(7), event)
            for _ in range(16):
                assert (await fast.next())["type"] == "message"
                seen += 1
            assert seen < 1000
        await fast.alive()
        bus.send(subjects.user(7), b'{"type":"message","data":{"last":true}}')
        assert (await fast.next())["data"] == {"last": True}
        # What was on its way is readable still, and the close code stands behind it.
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await slow.close_code() == 4408


async def metrics(edge: EdgeProcess) -> str:
    async with aiohttp.ClientSession() as http, http.get(edge.url + "/metrics") as response:
        return await response.text()
