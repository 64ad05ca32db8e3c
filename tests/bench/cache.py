"""How many of the messages that were read came out of the hot cache.

The cache itself tells: whatever a reader did not find there he puts there, and the script that does so asks once for
each message whether it is there already (ZCOUNT), as it does for each message that the timeline adds.
"""

from redis.asyncio import Redis

from tests.bench.loads.reads import MESSAGES_READ
from tests.bench.stack import Stack
from tests.bench.talk import Result


async def repaired(stack: Stack) -> int:
    """Messages put into the cache so far, by readers and by the timeline."""
    async with Redis.from_url(stack.redis_url) as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_zcount", {}).get("calls", 0))


async def hit_rate(stack: Stack, before: int, result: Result) -> float | None:
    """The share of the messages read in a part that came from the cache; None if none were read."""
    read = result.counts.get(MESSAGES_READ, 0)
    if not read:
        return None
    missed = await repaired(stack) - before - result.counts.get("acked", 0)
    return 1 - missed / read
