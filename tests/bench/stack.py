"""The whole system for a benchmark: real servers and our own processes, one for each part whose cost is of interest."""

import asyncio
import os
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from laptop.data import DataFolder
from laptop.guard import GuardProcess
from laptop.ports import free_ports
from laptop.process import LaptopError, Process, describe
from laptop.servers import Server
from shared import tables
from shared.adapters.sql import open_engine
from shared.ids import now_ms
from tests import servers

ROOT = Path(__file__).parent.parent.parent
SECRET = "benchmark-benchmark-benchmark-00"
Kind = Literal["laptop", "full"]
KINDS: tuple[Kind, ...] = ("laptop", "full")
PARTITIONS: dict[Kind, int] = {"laptop": 8, "full": 64}
"""Of the log, as `./task dev` and a cluster have them."""
START_S = 60.0
_USERS_AT_ONCE = 1000

PARTS = {
    "edge": ("edge",),
    "send": ("functions", "send"),
    "timeline": ("functions", "timeline"),
    "history": ("functions", "auth", "profile", "history", "groups", "read"),
}
"""Our own processes by name: what `python -m` runs."""


class Stack:
    """A running system. `parts` has all its processes by name, the servers first."""

    def __init__(
        self, folder: Path, db_url: str, nats_url: str, port: int, parts: dict[str, Process]
    ) -> None:
        self.folder = folder
        self.port = port
        self.nats_url = nats_url
        self.parts = parts
        self.engine: AsyncEngine = open_engine(db_url, pool_size=1)

    def processes(self, name: str) -> list[psutil.Process]:
        """The process of a part and its children (workers of an edge, say)."""
        process = psutil.Process(self.parts[name].pid)
        return [process, *process.children(recursive=True)]

    def check(self) -> None:
        """Raises: LaptopError if a part has ended."""
        for name, part in self.parts.items():
            status = part.poll()
            if status is not None:
                raise LaptopError(f"{name} ended: {describe(status)}{part.last_lines()}")

    async def add_users(self, count: int) -> None:
        """Puts the users 1 … `count` into SQL: to register them would take a password hash each."""
        async with self.engine.begin() as connection:
            for first in range(1, count + 1, _USERS_AT_ONCE):
                last = min(first + _USERS_AT_ONCE - 1, count)
                await connection.execute(
                    insert(tables.user), list(map(user_row, range(first, last + 1)))
                )


def user_row(user_id: int) -> dict[str, object]:
    """A user who has only his token."""
    name = f"bench-{user_id}"
    return {
        "id": user_id,
        "username": name,
        "username_key": name,
        "nickname": name,
        "nickname_key": name,
        "password_hash": "none: nobody logs in with a password",
        "created_ms": now_ms(),
    }


@asynccontextmanager
async def running(
    kind: Kind, folder: Path, *, root: Path = ROOT, workers: int = 1, partitions: int = 0
) -> AsyncIterator[Stack]:
    """Starts the servers and the processes of the source tree `root`; everything is ended whatever happens.

    `folder` takes data and logs. partitions: of the log, 0 for the usual number. Raises: LaptopError.
    """
    with ExitStack() as stack:
        data = DataFolder(folder)
        stack.callback(data.close)
        guard = GuardProcess(data.lock)
        stack.callback(guard.close)
        parts: dict[str, Process] = {}
        started: dict[str, Server] = {}
        for name, make in _SERVERS[kind].items():
            started[name] = parts[name] = server = await asyncio.to_thread(make, folder)
            server.guard = guard
            stack.callback(server.stop)
            server.launch()
        for server in started.values():
            await _until(server, server.ready)
        mariadb = started.get("mariadb")
        db_url = f"sqlite+aiosqlite:///{folder / 'bench.db'}"
        if isinstance(mariadb, servers.MariaDbServer):
            db_url = await mariadb.new_database()
        port = free_ports(1)[0]
        env = {name: value for name, value in os.environ.items() if not name.startswith("IM_")} | {
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            "IM_DATA_DIR": str(folder),
            "IM_EDGE_PORT": str(port),
            "IM_EDGE_WORKERS": str(workers),
            "IM_NATS_URL": started["nats"].url,
            "IM_REDIS_URL": started["redis"].url,
            "IM_DB_URL": db_url,
            "IM_LOG_URL": started["kafka"].url if "kafka" in started else "jetstream://",
            "IM_LOG_PARTITIONS": str(partitions or PARTITIONS[kind]),
            "IM_JWT_SECRET": SECRET,
            "IM_RATE_LIMITS": "off",
            "IM_STRANGERS": "allow",
        }

        def launch(name: str, *module: str) -> Process:
            command = [sys.executable, "-m", *module]
            process = Process(name, command, folder=root, log=data.log(name), env=env, grace=15)
            process.guard = guard
            stack.callback(process.stop)
            process.launch()
            return process

        migrations = launch("migrations", "migrations")
        await _until(migrations, lambda: migrations.poll() == 0)
        for name, module in PARTS.items():
            parts[name] = launch(name, *module)
        for name in PARTS:
            part = parts[name]
            if name == "edge":
                await _until(part, lambda: _answers(f"http://127.0.0.1:{port}/readyz"))
            else:
                await _until(
                    part, lambda part=part: '"serving ' in part.log.read_text(errors="replace")
                )
        system = Stack(folder, db_url, started["nats"].url, port, parts)
        try:
            yield system
        finally:
            await system.engine.dispose()
            # Callers before the called, so that nothing is asked in vain.
            for name in PARTS:
                await asyncio.to_thread(parts[name].stop)


_SERVERS: Mapping[Kind, Mapping[str, Callable[[Path], Server]]] = {
    "laptop": {"nats": servers.nats, "redis": servers.redis},
    "full": {
        "nats": servers.nats,
        "redis": servers.redis,
        "kafka": partial(servers.kafka, settled=True),
        "mariadb": partial(servers.mariadb, pool="512M"),  # as in the Compose file
    },
}


async def _until(process: Process, ready: object) -> None:
    assert callable(ready)
    deadline = time.monotonic() + START_S
    while not await asyncio.to_thread(ready):
        status = process.poll()
        if status:
            raise LaptopError(f"{process.name} ended: {describe(status)}{process.last_lines()}")
        if time.monotonic() > deadline:
            raise LaptopError(
                f"{process.name} was not ready within {START_S:.0f} s{process.last_lines()}"
            )
        await asyncio.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except OSError:
        return False
