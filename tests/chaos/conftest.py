"""The stack of a cluster: Kafka and MariaDB."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests import servers
from tests.system import System, running

FullStack = Callable[[int], AbstractAsyncContextManager[System]]


@pytest.fixture
def full_stack(tmp_path: Path) -> FullStack:
    """Starts everything on servers of its own, with as many timelines as are asked for."""

    @asynccontextmanager
    async def start(timelines: int) -> AsyncIterator[System]:
        with (
            servers.serve("nats-server", servers.nats) as nats,
            servers.serve("redis-server", servers.redis) as redis,
            servers.serve("Kafka", servers.kafka) as kafka,
            servers.serve("MariaDB", servers.mariadb) as mariadb,
        ):
            parts = {"nats": nats, "redis": redis, "kafka": kafka, "mariadb": mariadb}
            db_url = await mariadb.new_database()
            async with running(tmp_path, parts, db_url, kafka.url, timelines=timelines) as system:
                yield system

    return start
