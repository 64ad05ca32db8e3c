import asyncio
from collections.abc import AsyncIterator

import pytest

from edge.directory import NotKnownError
from edge.frames import text_frame
from edge.hub import Hub
from schemas.internal import Among, Membership
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


class FakeTells:
    """Groups of users, and a gate before each answer."""

    def __init__(self) -> None:
        self.groups: dict[int, list[Membership]] = {}
        self.asked: list[list[int]] = []
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def memberships(self, user_ids: list[int]) -> dict[int, list[Membership]]:
        self.asked.append(user_ids)
        await self.gate.wait()
        if self.away:
            raise NotKnownError("away")
        return {user_id: self.groups.get(user_id, []) for user_id in user_ids}

    async def among(self, group_id: int, user_ids: list[int]) -> Among:
        raise AssertionError((group_id, user_ids))


@pytest.fixture
async def tells() -> FakeTells:
    return FakeTells()


@pytest.fixture
async def bus() -> CountingBus:
    return CountingBus()


@pytest.fixture
async def hub(bus: CountingBus, tells: FakeTells) -> AsyncIterator[Hub]:
    hub = Hub(bus, tells)
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


def event(n: int = 0) -> bytes:
    return b'{"type":"message","data":{"n":%d}}' % n


def published(bus: MemoryBus, group_id: int, payload: bytes, version: int) -> None:
    bus.send(subjects.group(group_id), payload, headers=pack_headers({"Im-Members": str(version)}))


async def test_ready_comes_when_the_groups_are_subscribed(
    bus: CountingBus, hub: Hub, tells: FakeTells
) -> None:
    tells.groups = {1: [Membership(5, 1), Membership(6, 1)], 2: [Membership(5, 1)]}
    tells.gate.clear()
    a, b = FakeMember("a"), FakeMember("b")
    hub.join(1, a)
    hub.join(2, b)
    while not tells.asked:
        await asyncio.sleep(0)
    assert tells.asked == [[1, 2]], "one question for all who wait"
    assert sorted(bus.subscribed) == ["im.v1.user.1", "im.v1.user.2"], "his own events come first"
    bus.gate.clear()
    tells.gate.set()
    while len(bus.subscribed) < 4:
        await asyncio.sleep(0)
    second = FakeMember("second")
    hub.join(1, second)
    await asyncio.sleep(0)
    assert not any(m.is_live.is_set() for m in (a, b, second)), "the groups' do not stand yet"
    bus.gate.set()
    for member in (a, b, second):
        await member.is_live.wait()
    assert bus.flushes == 3
    published(bus, 5, event(), 1)
    await asyncio.sleep(0)
    assert a.got == b.got == second.got == [text_frame(event())]
    assert a.got[0] is b.got[0]
    third = FakeMember("third")
    hub.join(1, third)
    assert third.is_live.is_set(), "of a user who is here everything is known"
    for user_id, member in ((1, a), (2, b), (1, second), (1, third)):
        hub.leave(user_id, member)
    assert bus.subscribed == []
    assert len(hub.groups) == 0


async def test_nobody_waits_for_a_service_that_is_away(
    bus: CountingBus, hub: Hub, tells: FakeTells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.hub.RETRY_S", 0)
    tells.groups = {1: [Membership(5, 1)], 2: [Membership(5, 1)]}
    tells.away = True
    first, late, gone = FakeMember("first"), FakeMember("late"), FakeMember("gone")
    await joined(hub, 1, first)
    await joined(hub, 2, late)
    await joined(hub, 3, gone)
    hub.leave(3, gone)
    assert first.got == late.got == []
    tells.away = False
    while not (first.got and late.got):
        await asyncio.sleep(0)
    assert first.got == late.got == [RESYNC], "what was written meanwhile they pull"
    assert sorted(bus.subscribed) == ["im.v1.group.5", "im.v1.user.1", "im.v1.user.2"]
    published(bus, 5, event(), 1)
    await asyncio.sleep(0)
    assert first.got[1:] == late.got[1:] == [text_frame(event())]


async def test_after_the_bus_was_away_groups_are_read_before_the_resync(
    bus: CountingBus, hub: Hub, tells: FakeTells
) -> None:
    tells.groups = {1: [Membership(5, 1), Membership(6, 1)]}
    member = FakeMember("a")
    await joined(hub, 1, member)
    tells.groups = {1: [Membership(6, 1), Membership(7, 1)]}
    hub.reconnected()
    while not member.got:
        await asyncio.sleep(0)
    assert member.got == [RESYNC]
    assert sorted(bus.subscribed) == ["im.v1.group.6", "im.v1.group.7", "im.v1.user.1"]


async def test_control_events_move_a_user_and_reach_him(bus: CountingBus, hub: Hub) -> None:
    a, b = FakeMember("a"), FakeMember("b")
    await joined(hub, 1, a)
    await joined(hub, 2, b)
    bus.gate.clear()
    told = b'{"type":"group.joined","data":{"group_id":5,"members_version":3,"by":2}}'
    await pushed(bus, 1, told)
    assert "im.v1.group.5" in bus.subscribed
    assert a.got == [], "he would pull before the subscription stands, and miss what comes then"
    bus.gate.set()
    while not a.got:
        await asyncio.sleep(0)
    assert a.got == [text_frame(told)]
    published(bus, 5, event(), 3)
    await asyncio.sleep(0)
    left = b'{"type":"group.left","data":{"group_id":5,"members_version":4,"reason":"kicked"}}'
    await pushed(bus, 1, left)
    published(bus, 5, event(1), 3)
    await asyncio.sleep(0)
    assert a.got[1:] == [text_frame(event()), text_frame(left)]
    assert b.got == []
    assert "im.v1.group.5" not in bus.subscribed
