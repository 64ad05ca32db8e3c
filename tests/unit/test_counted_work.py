"""The hot road by counted work, which no busy machine can falsify: calls and memory per message on each part of it.

The bounds stand a little above what is needed today. One that is broken shows work that has crept in; raise it only
if that work is worth it (and say so in docs/benchmarks.md).
"""

import asyncio
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import msgspec

from edge.frames import TEXT, text_frame
from edge.road import Road
from edge.roster import Roster
from edge.session import Session
from edge.socket import Common, Socket
from edge.stats import Stats
from functions.send.handler import Body, Deps
from functions.send.handler import send as send_message
from functions.timeline.core import apply, prepare
from functions.timeline.state import Conversation, Progress, State
from schemas.records import SendRequested
from shared import subjects
from shared.adapters.memory import MemoryBus
from shared.adapters.memory_log import MemoryLog
from shared.adapters.nats_parser import LeanParser
from shared.auth import TokenVerifier
from shared.bus import Inbox, OnMessage, pack_headers
from shared.function import Function, on
from shared.hosts.nats import Host
from shared.ids import now_ms, random_token
from shared.log import Record
from tests.edge import SECRET, client_frame, token
from tests.group_service import GroupService
from tests.unit.test_edge_socket import FakeTransport, turns

COUNT = 200


def calls_per(count: int, work: Callable[[], object]) -> float:
    """Calls of functions, Python's and C's, that `work` makes, divided by `count`."""
    calls = 0

    def count_it(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count_it)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls / count


def message(i: int) -> dict[str, object]:
    return {"receiver_id": 2, "client_msg_id": f"c-{i}", "content": "x" * 100}


def test_parsing_a_message_of_the_bus() -> None:
    class Client:
        def listener_of(self, _sid: int) -> OnMessage:
            return lambda *_: None

    head = pack_headers({"Im-Conn": random_token(), "Im-Deadline": "1800000000000"})
    line = b"HMSG im.v1.user.7 12 _INBOX.e.x.1 %d %d\r\n" % (len(head), len(head) + 100)
    one = line + head + b"x" * 100 + b"\r\n"
    parser: Any = LeanParser
    coroutine = parser(Client()).parse(one * COUNT)

    def run() -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            return

    assert calls_per(COUNT, run) <= 10


def test_numbering_a_message() -> None:
    records = [
        Record(3, i, now_ms(), msgspec.json.encode(
            SendRequested(
                conversation_id="p_1_2", user_id=1, at=0, reply=f"_INBOX.e.{'a' * 22}.{i}", conn="c",
                client_msg_id=f"c-{i}",
                msg_type=1, content="x" * 100, receiver_id=2,
            )
        ))
        for i in range(COUNT)
    ]  # fmt: skip
    state = State(3, Progress())
    state.conversations["p_1_2"] = Conversation()

    def run() -> None:
        for record in records:
            apply(state, prepare(record))

    assert calls_per(COUNT, run) <= 36
    assert state.conversations["p_1_2"].max_seq == COUNT


async def test_a_message_through_the_edge_and_its_ack_back() -> None:
    bus = MemoryBus()
    inbox, stats = Inbox(bus), Stats()
    common = Common(bus, Road(inbox, stats), Roster(), stats, TokenVerifier(SECRET))
    GroupService(bus)
    asked: list[tuple[str, bytes]] = []
    bus.listen(
        "im.v1.cmd.1.message.send", lambda _s, reply, payload, _h: asked.append((reply, payload))
    )
    transport = FakeTransport()
    socket = Socket(common, transport)
    socket.start(token("1"))
    await turns()
    transport.written.clear()
    frames = [
        client_frame(
            TEXT, msgspec.json.encode({"type": "message.send", "id": str(i), "data": message(i)})
        )
        for i in range(50)
    ]

    def receive() -> None:
        for frame in frames:
            socket.data_received(frame)

    assert calls_per(50, receive) <= 58
    await turns()
    assert len(asked) == 50

    def answer() -> None:
        for reply, _ in asked:
            inbox._answered(reply, "", b'{"seq":1}', b"")

    assert calls_per(50, answer) <= 27
    await turns()
    assert len(transport.written) == 1, "acks of one turn leave in one write"
    common.close()
    inbox.close()


async def test_a_push_to_many_connections() -> None:
    bus = MemoryBus()
    inbox, stats = Inbox(bus), Stats()
    common = Common(bus, Road(inbox, stats), Roster(), stats, TokenVerifier(SECRET))
    GroupService(bus)
    transports = [FakeTransport() for _ in range(COUNT)]
    sockets = [Socket(common, transport) for transport in transports]
    for socket in sockets:
        socket.start(token("1"))
    await turns()
    for transport in transports:
        transport.written.clear()
    hub, user = common.hub, common.hub._users[1]

    def push() -> None:
        hub._deliver(user, "im.v1.user.1", "", b'{"type":"message","data":{}}', b"")

    assert calls_per(COUNT, push) <= 6
    await turns()
    wire = text_frame(b'{"type":"message","data":{}}')
    assert all(transport.written == [wire] for transport in transports)
    assert len({id(transport.written[0]) for transport in transports}) == 1, (
        "the bytes are built once"
    )
    common.close()
    inbox.close()


async def test_a_group_event_to_many_members() -> None:
    bus = MemoryBus()
    inbox, stats = Inbox(bus), Stats()
    common = Common(bus, Road(inbox, stats), Roster(), stats, TokenVerifier(SECRET))
    GroupService(bus).put(5, *range(1, COUNT + 1))
    transports = [FakeTransport() for _ in range(COUNT)]
    for user_id, transport in enumerate(transports, 1):
        Socket(common, transport).start(token(user_id))
    await turns()
    for transport in transports:
        transport.written.clear()
    (group,) = common.hub.groups
    assert len(group.users) == COUNT
    event = b'{"type":"message","data":{}}'
    headers = pack_headers({"Im-Conn": "elsewhere", "Im-Members": "1"})

    def push() -> None:
        group("im.v1.group.5", "", event, headers)

    assert calls_per(COUNT, push) <= 7
    await turns()
    wire = text_frame(event)
    assert all(transport.written == [wire] for transport in transports)
    assert len({id(transport.written[0]) for transport in transports}) == 1
    common.close()
    inbox.close()


async def test_a_command_through_the_host_and_send() -> None:
    class OpenGate:
        async def private(self, _sender: int, _receiver: int) -> None:
            return

        async def group(self, _sender: int, _group_id: int) -> None:
            return

    class NoSources:
        async def quoted(self, _msg_id: str, _conversation_id: str) -> str:
            raise AssertionError("a plain message quotes nothing")

        async def forwarded(self, _msg_id: str, _user_id: int) -> Body:
            raise AssertionError("a plain message forwards nothing")

    bus = MemoryBus()
    host = Host(bus, writer=MemoryLog(4))
    function: Function[Any] = Function(
        "send", (on("message.send", send_message),), lambda _: nullcontext()
    )
    await host.serve(function, Deps(OpenGate(), NoSources()))
    (accept,) = [f for p, _, f in bus._listeners.values() if p[:2] == ["im", "v1"]]
    block = pack_headers(
        {
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-00",
            "Im-Deadline": str(now_ms() + 9000),
            "Im-Conn": random_token(),
        }
    )
    payloads = [msgspec.json.encode(message(i)) for i in range(COUNT)]
    reply = f"{subjects.EDGE_INBOX}{'a' * 22}.1"
    calls = 0

    def count_it(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count_it)
    try:
        for payload in payloads:
            accept("im.v1.cmd.1.message.send", reply, payload, block)
        while host.in_flight:
            await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    assert calls / COUNT <= 100
    await host.drain(1)


def test_an_idle_connection_is_small() -> None:
    def verify(_token: str) -> Any:
        raise AssertionError

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    sessions = [Session(verify) for _ in range(1000)]
    per_session = (tracemalloc.get_traced_memory()[0] - before) / len(sessions)
    tracemalloc.stop()
    assert per_session <= 300
