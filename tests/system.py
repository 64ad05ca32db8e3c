"""The whole system for end-to-end and chaos tests: real servers and our own processes, each of which can be killed.

Unlike `laptop` nothing is started again by itself: a test decides what is up.
"""

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from clients.python.natterjack import Client
from laptop.ports import free_ports
from laptop.process import Process
from laptop.servers import Server
from shared.adapters.sql import open_engine
from tests.support import until

ROOT = Path(__file__).parent.parent
PASSWORD = "correct horse"
SECRET = "0123456789abcdef0123456789abcdef"
FUNCTIONS = (
    "auth",
    "profile",
    "friend_apply",
    "friends",
    "groups",
    "presence",
    "send",
    "recall",
    "read",
    "history",
    "facts",
    "search_index",
)


class System:
    """Running servers and processes by name: `edge`, `functions`, `timeline-1` …, and the servers given."""

    def __init__(
        self, folder: Path, servers: Mapping[str, Server], db_url: str, log_url: str
    ) -> None:
        self.servers = dict(servers)
        self.db_url = db_url
        self.processes: dict[str, Process] = {}
        self._folder = folder
        port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("IM_")},
            "PYTHONPATH": str(ROOT),
            "IM_DATA_DIR": str(folder / "data"),
            "IM_EDGE_PORT": str(port),
            "IM_NATS_URL": servers["nats"].url,
            "IM_REDIS_URL": servers["redis"].url,
            "IM_DB_URL": db_url,
            "IM_LOG_URL": log_url,
            "IM_LOG_PARTITIONS": "8",
            "IM_JWT_SECRET": SECRET,
            "IM_RATE_LIMITS": "off",
            "IM_STRANGERS": "allow",  # most tests are not about friends
        }

    async def start(self, timelines: int = 1, **env: str) -> None:
        """Migrates, then starts everything and returns when the edge is ready and the functions answer."""
        self.env |= env
        migrations = self._process("migrations", ["migrations"])
        migrations.launch()
        await until(lambda: migrations.poll() is not None, 60)
        assert migrations.poll() == 0, migrations.last_lines()
        self.add("edge", ["edge"])
        self.add("functions", ["functions", *FUNCTIONS])
        for i in range(1, timelines + 1):
            self.add(f"timeline-{i}", ["functions", "timeline"])
        await self.ready()

    def _process(self, name: str, module: list[str], **env: str) -> Process:
        command = [sys.executable, "-m", *module]
        log = self._folder / f"{name}.log"
        return Process(name, command, folder=ROOT, log=log, env=self.env | env, grace=15)

    def add(self, name: str, module: list[str], **env: str) -> Process:
        """Starts `python -m MODULE …` with the settings of this system, and further ones."""
        process = self.processes[name] = self._process(name, module, **env)
        process.launch()
        return process

    async def ready(self) -> None:
        """Returns when the edge is ready and an anonymous command is answered by its function."""
        await until(lambda: self._answers("/readyz", None), 60)
        # Wrong credentials: 401 means that the function is there.
        await until(
            lambda: self._answers(
                "/api/v1/auth/login", b'{"username":"nobody","password":"x"}', 401
            ),
            60,
        )

    def _answers(self, path: str, body: bytes | None, status: int = 200) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", body, timeout=5) as response:  # noqa: S310 - our own
                return bool(response.status == status)
        except urllib.error.HTTPError as error:
            return error.code == status
        except OSError:
            return False

    def kill(self, name: str) -> None:
        """SIGKILL, and started again at once."""
        part = self.servers.get(name) or self.processes[name]
        part.kill()
        if isinstance(part, Server):
            part.start()
        else:
            part.launch()

    def names(self) -> Iterable[str]:
        """Everything that can be killed."""
        return (*self.servers, *self.processes)

    async def user(self, name: str, **options: Any) -> Client:
        """Registers a user (if new) and returns a client for him, not yet opened."""
        body = f'{{"username":"{name}","password":"{PASSWORD}"}}'.encode()
        await until(
            lambda: (
                self._answers("/api/v1/auth/register", body, 201)
                or self._answers("/api/v1/auth/register", body, 409)
            )
        )
        return Client(self.url, username=name, password=PASSWORD, **options)

    async def rows(self, conversation_id: str) -> list[dict[str, Any]]:
        """All messages of a conversation that are in SQL, in order of `seq`."""
        engine = open_engine(self.db_url)
        try:
            async with engine.connect() as connection:
                months = await connection.execute(
                    text(
                        "SELECT month FROM conversation_month WHERE conversation_id = :c ORDER BY month"
                    ),
                    {"c": conversation_id},
                )
                rows: list[dict[str, Any]] = []
                for month in list(months.scalars()):
                    found = await connection.execute(
                        text(
                            f"SELECT * FROM message_{month} WHERE conversation_id = :c ORDER BY seq"
                        ),
                        {"c": conversation_id},
                    )
                    rows += [dict(row) for row in found.mappings()]
                return rows
        finally:
            await engine.dispose()

    async def stored(self, conversation_id: str, seq: int) -> list[dict[str, Any]]:
        """`rows`, as soon as they reach to this one: the ack of a message comes before its COMMIT."""
        async with asyncio.timeout(30):
            while True:
                rows = await self.rows(conversation_id)
                if rows and rows[-1]["seq"] >= seq:
                    return rows
                await asyncio.sleep(0.05)

    async def stop(self) -> dict[str, int | None]:
        """Ends our processes in an orderly way; returns their exit statuses."""
        for process in self.processes.values():
            await asyncio.to_thread(process.stop)
        return {name: process.poll() for name, process in self.processes.items()}


@asynccontextmanager
async def running(
    folder: Path,
    servers: Mapping[str, Server],
    db_url: str,
    log_url: str,
    *,
    timelines: int = 1,
    **env: str,
) -> AsyncIterator[System]:
    """A started System; what our processes logged is shown if the test fails."""
    system = System(folder, servers, db_url, log_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(system.stop)
        try:
            await system.start(timelines, **env)
            yield system
        except BaseException:
            for process in system.processes.values():
                print(f"--- {process.name}{process.last_lines(40)}")
            raise
