"""What NatsBus writes, and in which order, against a server that only notes it."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shared.adapters.nats import NatsBus
from tests.support import until

INFO = json.dumps({"server_id": "x", "version": "2.11.0", "max_payload": 1 << 20, "headers": True})


class Notes:
    """Answers every PING and keeps the lines of the newest connection."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.writer: asyncio.StreamWriter | None = None
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines, self.writer = [], writer
        writer.write(f"INFO {INFO}\r\n".encode())
        while line := await reader.readline():
            self.lines.append(line.rstrip())
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Notes]:
    notes = Notes()
    listener = await asyncio.start_server(notes.talk, "127.0.0.1", 0)
    notes.url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield notes
    listener.close()


async def test_flush_writes_what_waits_before_its_ping(server: Notes) -> None:
    bus = await NatsBus.open(server.url, "test")
    server.lines.clear()
    bus.listen("a", lambda *_: None)
    bus.send("b", b"")
    await bus.flush()
    assert server.lines[:4] == [b"SUB a  %d" % bus._sid, b"PUB b  0", b"", b"PING"]
    await bus.close()


async def test_a_subscription_made_while_the_server_is_away_is_sent_afterwards(
    server: Notes,
) -> None:
    bus = await NatsBus.open(server.url, "test")
    kept, ended = bus.listen("kept", lambda *_: None), bus.listen("ended", lambda *_: None)
    assert server.writer is not None
    server.writer.transport.abort()
    await until(lambda: not bus.connected)
    late = bus.listen("late", lambda *_: None)
    given_up = bus.listen("given_up", lambda *_: None)
    bus.unlisten(ended)
    bus.unlisten(given_up)
    again = asyncio.Event()
    bus.on_reconnect(again.set)
    await again.wait()
    await bus.flush()
    subscribed = {line for line in server.lines if line.startswith(b"SUB")}
    assert subscribed == {b"SUB kept  %d" % kept, b"SUB late  %d" % late}
    await bus.close()
