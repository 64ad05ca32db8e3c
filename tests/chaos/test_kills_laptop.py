"""Everything is killed with -9 in turn, under load, on the laptop's stack (JetStream, SQLite).

IM_CHAOS_MESSAGES sets how many messages (2,000 by default), IM_CHAOS_SEED the order of the kills.
"""

from pathlib import Path

from tests import servers
from tests.chaos.conversation import MESSAGES, check, kill_in_turn, talk
from tests.system import running

VICTIMS = ("functions", "timeline-1", "edge", "redis", "nats")


async def test_what_was_acked_is_there_whatever_is_killed(tmp_path: Path) -> None:
    db_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}"
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        parts = {"nats": nats, "redis": redis}
        async with running(tmp_path, parts, db_url, "jetstream://") as system:
            await check(system, await talk(system, MESSAGES, kill_in_turn(system, VICTIMS)))
