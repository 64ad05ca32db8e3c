"""The laptop's stack: JetStream and SQLite. A log of its own for each test: what it holds would be applied again."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from laptop.servers import Server
from tests import servers
from tests.system import System, running


class Start(Protocol):
    """Starts the whole system with further environment variables."""

    def __call__(self, **env: str) -> AbstractAsyncContextManager[System]: ...


@pytest.fixture(params=["laptop", "cluster"])
def both_stacks(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Runs a test on JetStream and SQLite, and on Kafka and MariaDB."""

    @asynccontextmanager
    async def start(**env: str) -> AsyncIterator[System]:
        with ExitStack() as stack:
            nats = stack.enter_context(servers.serve("nats-server", servers.nats))
            redis = stack.enter_context(servers.serve("redis-server", servers.redis))
            parts: dict[str, Server] = {"nats": nats, "redis": redis}
            db_url, log_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}", "jetstream://"
            if request.param == "cluster":
                kafka = stack.enter_context(servers.serve("Kafka", servers.kafka))
                mariadb = stack.enter_context(servers.serve("MariaDB", servers.mariadb))
                parts |= {"kafka": kafka, "mariadb": mariadb}
                db_url, log_url = await mariadb.new_database(), kafka.url
            async with running(tmp_path, parts, db_url, log_url, timelines=1, **env) as system:
                yield system

    return start


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    db_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}"
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        parts = {"nats": nats, "redis": redis}
        async with running(tmp_path, parts, db_url, "jetstream://") as started:
            yield started
