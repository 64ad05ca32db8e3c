"""A Socket on the in-memory bus and a transport that only notes what is written."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge import frames
from edge.road import Road
from edge.roster import Roster
from edge.socket import MAX_OUTGOING, Common, Socket
from edge.stats import Stats
from schemas.internal import SessionOf
from shared import subjects
from shared.adapters.memory import MemoryBus
from shared.auth import TokenVerifier
from shared.bus import Inbox
from tests.edge import SECRET, client_frame, token
from tests.group_service import GroupService

EVENT = b'{"type":"message","data":{}}'


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = ""
        self.high = 0

    def write(self, data: Any) -> None:
        assert not self.ended, "written after the end"
        self.written.append(data)

    def set_write_buffer_limits(self, high: int | None = None, _low: int | None = None) -> None:
        self.high = high or 0

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class GatedBus(MemoryBus):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def flush(self) -> None:
        await self.gate.wait()


@pytest.fixture
async def bus() -> GatedBus:
    return GatedBus()


@pytest.fixture
async def service(bus: GatedBus) -> GroupService:
    return GroupService(bus)


@pytest.fixture
async def common(bus: GatedBus, service: GroupService) -> AsyncIterator[Common]:
    inbox, stats = Inbox(bus), Stats()
    common = Common(bus, Road(inbox, stats), Roster(), stats, TokenVerifier(SECRET))
    yield common
    common.close()
    inbox.close()


def opened(common: Common, access_token: str) -> tuple[Socket, FakeTransport]:
    transport = FakeTransport()
    socket = Socket(common, transport)
    socket.start(access_token)
    return socket, transport


async def turns() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def test_ready_is_the_first_push(common: Common, bus: GatedBus) -> None:
    socket, transport = opened(common, token())
    bus.send(subjects.user(7), EVENT)
    await turns()
    assert transport.written == []
    bus.gate.set()
    await turns()
    bus.send(subjects.user(7), EVENT)
    await turns()
    ready, event = transport.written
    assert b'"type":"ready"' in ready
    assert event == frames.text_frame(EVENT)
    socket.connection_lost(None)


async def test_its_session_is_checked_once_pushes_reach_it(
    common: Common, bus: GatedBus, service: GroupService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.checks.GATHER_S", 0)
    monkeypatch.setattr("edge.checks.AGAIN_S", 0)
    mine, other = SessionOf(7, "mine"), SessionOf(8, "other")
    service.ended = [mine]
    service.refusing = True
    socket, transport = opened(common, token(7, sid="mine"))
    _, other_transport = opened(common, token(8, sid="other"))
    await turns()
    assert service.checked == [], "before the subscription stands a kick would be missed"
    bus.gate.set()
    while len(service.checked) < 3:
        await asyncio.sleep(0.001)
    service.refusing = False
    while frames.KICKED.to_bytes(2) not in transport.written[-1]:
        await asyncio.sleep(0.001)
    assert all(asked == [mine, other] for asked in service.checked), "one question for all"
    assert b'"type":"kicked"' in transport.written[-1]
    assert b'"type":"kicked"' not in b"".join(other_transport.written)
    socket.connection_lost(None)


async def test_a_slow_client_is_closed_once_and_gets_nothing_more(
    common: Common, bus: GatedBus
) -> None:
    bus.gate.set()
    socket, transport = opened(common, token())
    await turns()
    assert transport.high == MAX_OUTGOING
    socket.pause_writing()
    await turns()
    assert transport.written[-1][2:4] == frames.SLOW.to_bytes(2)
    assert (transport.ended, common.stats.slow_clients) == ("", 1)
    written = len(transport.written)
    bus.send(subjects.user(7), EVENT)
    socket.push(EVENT)
    socket.ping()
    socket.close(1012, "")
    socket.data_received(client_frame(frames.TEXT, b'{"type":"ping"}'))
    await turns()
    assert len(transport.written) == written
    socket.data_received(client_frame(frames.CLOSE, frames.SLOW.to_bytes(2)))
    assert (transport.ended, len(transport.written)) == ("closed", written)
    socket.connection_lost(None)


async def test_an_answer_for_a_connection_that_has_gone(common: Common, bus: GatedBus) -> None:
    requests: asyncio.Queue[str] = asyncio.Queue()
    bus.listen(subjects.commands_of("user.me"), lambda _s, reply, *_: requests.put_nowait(reply))
    bus.gate.set()
    socket, transport = opened(common, token())
    await turns()
    socket.data_received(client_frame(frames.TEXT, b'{"type":"user.me","id":1}'))
    reply = await requests.get()
    transport.ended = "aborted"
    socket.connection_lost(ConnectionResetError())
    bus.send(reply, b"{}")
    await turns()
    assert common.stats.commands["user.me"].codes == {"ok": 1}


async def test_a_lost_connection_leaves_no_trace(common: Common, bus: GatedBus) -> None:
    before = len(bus._listeners)
    sockets = [opened(common, token(n))[0] for n in range(1, 4)] + [opened(common, "")[0]]
    assert common.stats.connections == 4
    assert len(bus._listeners) == before + 3
    for socket in sockets:
        socket.connection_lost(None)
    assert common.stats.connections == 0
    assert len(bus._listeners) == before
    assert list(common.roster) == []
    bus.gate.set()
    await turns()


async def test_a_dead_client_is_dropped_without_a_word(common: Common) -> None:
    socket, transport = opened(common, "")
    socket.silent()
    assert (transport.ended, transport.written, common.stats.silent_clients) == ("aborted", [], 1)
    socket.push(EVENT)
    socket.auth_missing()
    socket.connection_lost(None)
