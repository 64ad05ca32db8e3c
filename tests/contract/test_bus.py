"""One suite for `shared.bus.Bus`: in memory and on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.adapters import nats as adapter
from shared.adapters.memory import MemoryBus
from shared.adapters.nats import NatsBus
from shared.bus import NO_RESPONDERS, Bus, Inbox, header, pack_headers
from shared.errors import Unavailable, UnknownOutcome
from tests.servers import NatsServer
from tests.support import until

Got = tuple[str, str, bytes, bytes]


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus()
    else:
        server: NatsServer = request.getfixturevalue("nats_server")
        opened = await NatsBus.open(server.url, "test")
        yield opened
        await opened.close()


def collect(bus: Bus, subject: str, queue: str = "") -> "asyncio.Queue[Got]":
    got: asyncio.Queue[Got] = asyncio.Queue()
    bus.listen(subject, lambda *message: got.put_nowait(message), queue)
    return got


async def test_a_message_arrives_whole(bus: Bus) -> None:
    got = collect(bus, "im.v1.user.7")
    await bus.flush()
    block = pack_headers({"Im-Conn": "c1", "traceparent": "00-aa"})
    bus.send("im.v1.user.7", b'{"a":\r\n1}', "_INBOX.x.1", block)
    subject, reply, payload, headers = await got.get()
    assert (subject, reply, payload) == ("im.v1.user.7", "_INBOX.x.1", b'{"a":\r\n1}')
    assert header(headers, b"Im-Conn: ") == "c1"
    assert header(headers, b"traceparent: ") == "00-aa"
    assert header(headers, b"Im-Deadline: ") == ""


async def test_messages_of_one_sender_keep_their_order(bus: Bus) -> None:
    got = collect(bus, "order.*")
    await bus.flush()
    for i in range(2000):
        bus.send(f"order.{i}", str(i).encode())
    assert [int((await got.get())[2]) for _ in range(2000)] == list(range(2000))


async def test_patient_messages_arrive_in_order_among_others(bus: Bus) -> None:
    got = collect(bus, "order.*")
    await bus.flush()
    for i in range(500):
        bus.send(f"order.{i}", str(i).encode(), patient=i % 3 > 0)
    assert [int((await got.get())[2]) for _ in range(500)] == list(range(500))
    bus.send("order.alone", b"500", patient=True)
    assert (await got.get())[2] == b"500"


@pytest.mark.parametrize(
    ("pattern", "subject", "heard"),
    [
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.c.d", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
    ],
)
async def test_wildcards(bus: Bus, pattern: str, subject: str, *, heard: bool) -> None:
    got = collect(bus, pattern)
    fence = collect(bus, "fence")
    await bus.flush()
    bus.send(subject, b"x")
    bus.send("fence", b"")
    await fence.get()
    assert got.qsize() == int(heard)


async def test_a_queue_group_shares_and_others_hear_all(bus: Bus) -> None:
    first, second = collect(bus, "work", "group"), collect(bus, "work", "group")
    every = collect(bus, "work")
    await bus.flush()
    for _ in range(50):
        bus.send("work", b"x")
    for _ in range(50):
        await every.get()
    await bus.flush()
    assert first.qsize() + second.qsize() == 50
    assert first.qsize()
    assert second.qsize()


async def test_after_unlisten_nothing_comes(bus: Bus) -> None:
    got: asyncio.Queue[Got] = asyncio.Queue()
    sid = bus.listen("gone", lambda *m: got.put_nowait(m))
    fence = collect(bus, "fence")
    await bus.flush()
    bus.unlisten(sid)
    bus.unlisten(sid)
    bus.send("gone", b"x")
    bus.send("fence", b"")
    await fence.get()
    assert got.empty()


async def test_a_failing_listener_harms_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("listener broke")

    bus.listen("boom", fail)
    got = collect(bus, "fine")
    await bus.flush()
    bus.send("boom", b"")
    bus.send("fine", b"still here")
    assert (await got.get())[2] == b"still here"
    assert "listener broke" in caplog.text


@pytest.fixture
async def inbox(bus: Bus) -> AsyncIterator[Inbox]:
    opened = Inbox(bus)
    await bus.flush()
    yield opened
    opened.close()


async def test_a_request_gets_its_answer(bus: Bus, inbox: Inbox) -> None:
    bus.listen("echo", lambda _s, reply, payload, _h: bus.send(reply, payload.upper()))
    await bus.flush()
    answers = await asyncio.gather(*(inbox.request("echo", b"m%d" % i, 5) for i in range(500)))
    assert [body for body, _ in answers] == [b"M%d" % i for i in range(500)]
    assert len(inbox) == 0


async def test_nobody_there_is_known_at_once(inbox: Inbox) -> None:
    with pytest.raises(Unavailable):
        await inbox.request("nobody.serves.this", b"", 60)


async def test_no_answer_is_an_unknown_outcome(bus: Bus, inbox: Inbox) -> None:
    collect(bus, "silent")
    await bus.flush()
    with pytest.raises(UnknownOutcome):
        await inbox.request("silent", b"", 0.05)
    assert len(inbox) == 0


async def test_closing_an_inbox_answers_those_who_wait(bus: Bus) -> None:
    collect(bus, "silent")
    own = Inbox(bus)
    await bus.flush()
    waiting = asyncio.ensure_future(own.request("silent", b"", 60))
    await bus.flush()
    own.close()
    with pytest.raises(UnknownOutcome):
        await waiting


async def test_the_no_responders_block_is_what_servers_send(bus: Bus) -> None:
    got = collect(bus, "_INBOX.test.1")
    await bus.flush()
    bus.send("nobody.serves.this", b"", "_INBOX.test.1")
    _, _, payload, headers = await got.get()
    assert payload == b""
    assert headers.startswith(NO_RESPONDERS)


async def test_a_bus_away_refuses_and_heals(nats_server: NatsServer) -> None:
    bus = await NatsBus.open(nats_server.url, "test")
    again = asyncio.Event()
    bus.on_reconnect(again.set)
    before = collect(bus, "before")
    await bus.flush()
    nats_server.kill()
    await until(lambda: not bus.connected)
    with pytest.raises(Unavailable):
        bus.send("before", b"lost")
    meanwhile = collect(bus, "meanwhile")
    nats_server.start()
    await again.wait()
    await bus.flush()
    bus.send("before", b"1")
    bus.send("meanwhile", b"2")
    assert (await before.get())[2] == b"1"
    assert (await meanwhile.get())[2] == b"2"
    await bus.close()


async def test_patient_messages_wait_for_one_another(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "TICK_S", 3600)
    bus = await NatsBus.open(nats_server.url, "test")
    got = collect(bus, "patient.*")
    await bus.flush()
    bus.send("patient.0", b"0", patient=True)
    assert (await got.get())[2] == b"0", "there is nobody to wait for"
    monkeypatch.setattr(bus._patience, "left", lambda *_: None)
    bus._patience.ticks = 1
    bus.send("patient.1", b"1", patient=True)
    for _ in range(10):
        await asyncio.sleep(0)
    assert bus._pending_data_size, "it has left alone"
    bus.send("patient.2", b"2", patient=True)
    bus.send("patient.3", b"3")  # takes them along
    assert [(await got.get())[2] for _ in range(3)] == [b"1", b"2", b"3"]
    bus.send("patient.4", b"4", patient=True)
    await bus.flush()  # as this does
    assert (await got.get())[2] == b"4"
    await bus.close()


async def test_a_cancelled_flush_does_not_deafen_the_connection(nats_server: NatsServer) -> None:
    bus = await NatsBus.open(nats_server.url, "test")
    for _ in range(20):
        flush = asyncio.create_task(bus.flush())
        await asyncio.sleep(0)
        flush.cancel()
        await asyncio.wait([flush])
    heard = asyncio.Event()
    bus.listen("still.there", lambda *_: heard.set())
    bus.send("still.there", b"")
    async with asyncio.timeout(5):
        await heard.wait()
    await bus.close()
