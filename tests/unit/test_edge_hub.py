import asyncio
from collections.abc import AsyncIterator

import pytest

from edge.frames import text_frame
from edge.hub import Hub
from shared import subjects
from shared.adapters.memory import MemoryBus
from shared.bus import pack_headers

RESYNC = text_frame(b'{"type":"resync","data":{}}')


class FakeMember:
    def __init__(self, connection_id: str, session_id: str = "s1") -> None:
        self.connection_id = connection_id
        self.session_id = session_id
        self.is_live = asyncio.Event()
        self.got: list[bytes] = []
        self.closed: int | None = None

    def live(self) -> None:
        self.is_live.set()

    def push(self, wire: bytes) -> None:
        if self.is_live.is_set():
            self.got.append(wire)

    def close(self, code: int, _reason: str) -> None:
        self.closed = code


class CountingBus(MemoryBus):
    """Counts, and can hold back its flushes."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0

    async def flush(self) -> None:
        self.flushes += 1
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise TimeoutError
        await super().flush()

    @property
    def subscribed(self) -> list[str]:
        return [".".join(parts) for parts, _, _ in self._listeners.values()]


@pytest.fixture
async def bus() -> CountingBus:
    return CountingBus()


@pytest.fixture
async def hub(bus: CountingBus) -> AsyncIterator[Hub]:
    hub = Hub(bus)
    yield hub
    hub.close()


async def joined(hub: Hub, user_id: int, *members: FakeMember) -> None:
    for member in members:
        hub.join(user_id, member)
    for member in members:
        await member.is_live.wait()


async def pushed(bus: MemoryBus, user_id: int, payload: bytes, conn: str = "") -> None:
    headers = pack_headers({"Im-Conn": conn}) if conn else b""
    bus.send(subjects.user(user_id), payload, headers=headers)
    await asyncio.sleep(0)


async def test_one_subscription_per_user_counted_by_reference(bus: CountingBus, hub: Hub) -> None:
    a, b, c = FakeMember("a"), FakeMember("b"), FakeMember("c")
    await joined(hub, 1, a, b)
    await joined(hub, 2, c)
    assert sorted(bus.subscribed) == ["im.v1.user.1", "im.v1.user.2"]
    hub.leave(1, a)
    hub.leave(1, a)
    assert len(bus.subscribed) == 2
    hub.leave(1, b)
    assert bus.subscribed == ["im.v1.user.2"]
    await joined(hub, 1, a)
    assert sorted(bus.subscribed) == ["im.v1.user.1", "im.v1.user.2"]


async def test_all_devices_but_the_sending_one_get_the_very_same_bytes(
    bus: CountingBus, hub: Hub
) -> None:
    a, b, c, other = (FakeMember(name) for name in "abco")
    await joined(hub, 1, a, b, c)
    await joined(hub, 2, other)
    await pushed(bus, 1, b'{"type":"message","data":{}}', conn="b")
    assert a.got == [text_frame(b'{"type":"message","data":{}}')]
    assert a.got[0] is c.got[0]
    assert b.got == other.got == []


async def test_connects_share_a_flush_and_latecomers_wait_for_the_next(
    bus: CountingBus, hub: Hub
) -> None:
    bus.gate.clear()
    first = [FakeMember(f"a{i}") for i in range(50)]
    for i, member in enumerate(first):
        hub.join(i, member)
    await asyncio.sleep(0)
    late = FakeMember("late")
    hub.join(99, late)
    assert bus.flushes == 1
    assert not first[0].is_live.is_set()
    bus.gate.set()
    for member in [*first, late]:
        await member.is_live.wait()
    assert bus.flushes == 2


async def test_after_the_bus_was_away_all_are_told_to_resync(bus: CountingBus, hub: Hub) -> None:
    old = FakeMember("old")
    await joined(hub, 1, old)
    bus.connected = False
    new = FakeMember("new")
    hub.join(2, new)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not new.is_live.is_set()
    bus.connected = True
    hub.reconnected()
    await new.is_live.wait()
    assert old.got == [RESYNC]
    assert new.got == []


async def test_a_break_during_a_flush_does_not_hold_anybody_up(bus: CountingBus, hub: Hub) -> None:
    bus.gate.clear()
    member = FakeMember("a")
    hub.join(1, member)
    await asyncio.sleep(0)
    bus.gate = asyncio.Event()  # the flush under way will never end
    bus.gate.set()
    hub.reconnected()
    await member.is_live.wait()


async def test_a_failed_flush_is_tried_again(
    bus: CountingBus, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.hub.RETRY_S", 0)
    bus.failures = 2
    await joined(hub, 1, FakeMember("a"))
    assert bus.flushes == 3


async def test_kicked_closes_the_sockets_of_that_session_only(bus: CountingBus, hub: Hub) -> None:
    a, b, other = FakeMember("a"), FakeMember("b"), FakeMember("c", "s2")
    await joined(hub, 1, a, b, other)
    kicked = b'{"type":"kicked","data":{"session_id":"s1","reason":"logout"}}'
    await pushed(bus, 1, kicked)
    assert a.got == b.got == [text_frame(kicked)]
    assert (a.closed, b.closed, other.closed, other.got) == (4409, 4409, None, [])


async def test_whoever_leaves_while_the_bus_is_away_is_forgotten(
    bus: CountingBus, hub: Hub
) -> None:
    bus.gate.clear()
    gone, here, late = FakeMember("c1"), FakeMember("c2"), FakeMember("c3")
    hub.join(7, gone)
    hub.join(8, here)
    while not bus.flushes:
        await asyncio.sleep(0)
    hub.leave(7, gone)
    hub.join(9, late)
    assert bus.flushes == 1
    hold, bus.gate = bus.gate, asyncio.Event()
    hold.set()
    await here.is_live.wait()
    assert not late.is_live.is_set(), "its subscription came after the flush began"
    bus.gate.set()
    await late.is_live.wait()
    assert not gone.is_live.is_set()
