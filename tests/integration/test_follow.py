"""A function that follows facts: on NATS it reads them itself, over HTTP its bridge brings them; one handler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from schemas.docs.examples import EXAMPLES
from schemas.facts import MessageSent
from schemas.types import Empty
from shared import subjects
from shared.adapters.event_stream import ensure_event_stream
from shared.adapters.jetstream import publish
from shared.adapters.memory_log import MemoryLog
from shared.adapters.nats import NatsBus
from shared.bus import Inbox, pack_headers
from shared.function import Context, Function, Outcome, Push, on_fact
from shared.hosts.bridge import Bridging
from shared.hosts.faces import Faces
from shared.hosts.sink import Sink
from shared.hosts.web import Web
from shared.resources import Resources
from shared.settings import Settings
from tests import servers

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    yield


class Handler:
    """Fails on the first fact that comes, once; pushes the id of each to user 9."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    async def __call__(self, fact: MessageSent, ctx: Context[Any]) -> Outcome[Empty]:
        self.seen.append((fact.id, ctx.traceparent))
        if len(self.seen) == 1:
            raise RuntimeError("not today")
        return Outcome(None, pushes=(Push(subjects.user(9), fact.id.encode()),))


@pytest.mark.parametrize("face", ["nats", "http"])
async def test_each_fact_is_handled_until_it_succeeds(face: str) -> None:
    handler = Handler()
    function: Function[None] = Function(
        "translate", (), lifespan, facts=(on_fact(MessageSent, handler),)
    )
    example = next(e for e in EXAMPLES if isinstance(e, MessageSent))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(servers.serve("nats-server", servers.nats))
        settings = Settings.load({"IM_NATS_URL": server.url})
        await ensure_event_stream(settings)
        bus = await NatsBus.open(server.url, "test")
        stack.push_async_callback(bus.close)
        resources = await stack.enter_async_context(Resources(settings, bus))
        web = await stack.enter_async_context(Web(0)) if face == "http" else None
        faces = Faces(resources, MemoryLog(1), web, nats=face == "nats")
        await faces.serve(function, None)
        faces.open()
        if web is not None:
            sink = await stack.enter_async_context(Sink(f"http://127.0.0.1:{web.port}"))
            bridging = await Bridging.start("translate", bus, sink, ("message.sent",), 8)
            stack.push_async_callback(bridging.drain, 5)
            assert bridging.facts is not None
            await bridging.facts.ready.wait()
        else:
            (reader,) = faces.facts
            await reader.ready.wait()
        pushed: asyncio.Queue[bytes] = asyncio.Queue()
        bus.listen(subjects.user(9), lambda _s, _r, payload, _h: pushed.put_nowait(payload))
        inbox = Inbox(bus, subjects.FUNCTION_INBOX)
        for i in range(5):
            fact = msgspec.structs.replace(example, id=f"f{i}")
            headers = pack_headers({"Nats-Msg-Id": fact.id, "traceparent": TRACE})
            await publish(inbox, "im.v1.evt.message.sent", msgspec.json.encode(fact), headers)
        async with asyncio.timeout(20):
            got = [await pushed.get() for _ in range(5)]
        assert sorted(got) == [b"f0", b"f1", b"f2", b"f3", b"f4"]
        assert len(handler.seen) == 6
        assert {trace for _, trace in handler.seen} == {TRACE}
        inbox.close()
        await faces.drain(5)
        faces.close()
