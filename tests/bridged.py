"""The whole system with functions as Knative runs them: bridges before activators, each a process of its own."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from laptop.servers import NatsServer, RedisServer
from shared import subjects
from shared.adapters.nats import NatsBus
from shared.bus import ERROR_CODE, NO_RESPONDERS, Bus, header, pack_headers
from shared.hosts.check import missing
from shared.ids import now_ms, random_token
from tests.knative import Activator
from tests.support import until
from tests.system import System, running

DEADLINE_MS = 15_000
"""As the edge gives commands of cold functions."""


class Reply(NamedTuple):
    """code: "ok", "no responders", or the one in the error. data: the answer's fields."""

    code: str
    data: dict[str, object]


class Asker:
    """Asks on NATS as the edge does, and counts every answer that ever comes to a request."""

    def __init__(self, bus: Bus) -> None:
        self.answers: Counter[str] = Counter()
        self.asked = 0
        self._bus = bus
        self._address = f"{subjects.EDGE_INBOX}{random_token()}."
        self._waiting: dict[str, asyncio.Future[Reply]] = {}
        bus.listen(f"{self._address}*", self._answered)

    async def once(self, user: int, command: str, payload: bytes) -> Reply:
        """Asks one time. Raises: TimeoutError if nobody answers until a second after the dead line."""
        self.asked += 1
        token = str(self.asked)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        headers = pack_headers({"Im-Deadline": str(now_ms() + DEADLINE_MS)})
        self._bus.send(subjects.command(user, command), payload, self._address + token, headers)
        async with asyncio.timeout(DEADLINE_MS / 1000 + 1):
            return await future

    async def until_known(self, user: int, command: str, payload: bytes) -> Reply:
        """Asks again as long as the answer says that this is safe for an idempotent command."""
        while True:
            reply = await self.once(user, command, payload)
            if reply.code not in ("unavailable", "unknown_outcome", "no responders"):
                return reply
            await asyncio.sleep(0.05)

    def _answered(self, subject: str, _reply: str, payload: bytes, block: bytes) -> None:
        token = subject[len(self._address) :]
        self.answers[token] += 1
        future = self._waiting.pop(token, None)
        if future is None or future.done():
            return
        if block.startswith(NO_RESPONDERS):
            future.set_result(Reply("no responders", {}))
        else:
            data = msgspec.json.decode(payload)
            future.set_result(Reply(data["code"] if header(block, ERROR_CODE) else "ok", data))


class Bridged(NamedTuple):
    """The system, its activators by function, and one who asks."""

    system: System
    activators: dict[str, Activator]
    asker: Asker

    def add_bridge(self, function: str, name: str) -> None:
        """Starts one more bridge for a function."""
        self.system.add(
            name,
            ["shared.hosts.bridge", function],
            K_SINK=self.activators[function].url,
            K_CE_OVERRIDES='{"extensions":{"cluster":"test"}}',
        )


@asynccontextmanager
async def bridged(
    folder: Path, nats: NatsServer, redis: RedisServer, functions: Sequence[str]
) -> AsyncIterator[Bridged]:
    """Everything started, with `functions` scaled to zero behind their bridges."""
    db_url = f"sqlite+aiosqlite:///{folder / 'im.db'}"
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(
            running(folder, {"nats": nats, "redis": redis}, db_url, "jetstream://")
        )
        await asyncio.to_thread(system.processes["functions"].stop)
        system.add("functions", ["functions", "auth"])
        activators = {
            name: await stack.enter_async_context(Activator(name, system.env, folder))
            for name in functions
        }
        bus = await NatsBus.open(nats.url, "test")
        stack.push_async_callback(bus.close)
        started = Bridged(system, activators, Asker(bus))
        for name in functions:
            started.add_bridge(name, f"bridge-{name}")
        async with asyncio.timeout(30):
            while await missing(nats.url, ["auth", *functions], 1):
                pass  # asked again: who comes later has not heard the first question
        await until(lambda: not any(a.running for a in activators.values()))
        yield started
