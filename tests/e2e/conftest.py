"""The laptop's stack: JetStream and SQLite. A log of its own for each test: what it holds would be applied again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import servers
from tests.system import System, running


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
