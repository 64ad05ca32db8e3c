"""Fixtures that need real servers and our own code."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.inprocess import Service, running
from tests.servers import MariaDbServer, RedisServer


@pytest.fixture(params=["sqlite", "mariadb"])
async def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'natterjack.db'}"
    server: MariaDbServer = request.getfixturevalue("mariadb_server")
    return await server.new_database()


@pytest.fixture
async def service(db_url: str, redis_server: RedisServer) -> AsyncIterator[Service]:
    """`auth` and `profile`, limits on, nobody registered."""
    async with running(db_url, redis_server.url) as running_service:
        await running_service.resources.redis().flushdb()
        yield running_service
