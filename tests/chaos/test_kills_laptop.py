"""Everything is killed with -9 in turn, under load, on the laptop's stack (JetStream, SQLite).

IM_CHAOS_MESSAGES sets how many messages (2,000 by default), IM_CHAOS_SEED the order of the kills.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests import servers
from tests.chaos.conversation import check, talk
from tests.support import until
from tests.system import running

MESSAGES = int(os.environ.get("IM_CHAOS_MESSAGES", "2000"))
SEED = int(os.environ.get("IM_CHAOS_SEED", "1"))
VICTIMS = ("functions", "timeline-1", "edge", "redis", "nats")


async def test_what_was_acked_is_there_whatever_is_killed(tmp_path: Path) -> None:
    db_url = f"sqlite+aiosqlite:///{tmp_path / 'im.db'}"
    with (
        servers.serve("nats-server", servers.nats) as nats,
        servers.serve("redis-server", servers.redis) as redis,
    ):
        parts = {"nats": nats, "redis": redis}
        async with running(tmp_path, parts, db_url, "jetstream://") as system:
            order = random.Random(SEED).sample(VICTIMS, len(VICTIMS))

            async def kill_in_turn(acked: Callable[[], int]) -> None:
                rounds = max(1, MESSAGES // 2000)
                for i, name in enumerate(order * rounds, 1):
                    share = MESSAGES * i // (len(order) * rounds + 1)
                    await until(lambda share=share: acked() >= share, 120)  # type: ignore[misc]
                    system.kill(name)

            await check(system, await talk(system, MESSAGES, kill_in_turn))
