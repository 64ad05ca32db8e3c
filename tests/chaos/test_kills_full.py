"""Everything is killed with -9 in turn, under load, on Kafka and MariaDB with two timelines.

IM_CHAOS_MESSAGES sets how many messages (2,000 by default), IM_CHAOS_SEED the order of the kills.
"""

from tests.chaos.conftest import FullStack
from tests.chaos.conversation import MESSAGES, check, kill_in_turn, talk

VICTIMS = ("functions", "timeline-1", "timeline-2", "edge", "redis", "nats", "kafka", "mariadb")


async def test_what_was_acked_is_there_whatever_is_killed(full_stack: FullStack) -> None:
    async with full_stack(2) as system:
        await check(system, await talk(system, MESSAGES, kill_in_turn(system, VICTIMS)))
