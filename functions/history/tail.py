"""What the hot cache has beyond SQL: messages that are acked and not stored yet, and conversations begun by them.

One Redis call for all that is asked at once. Redis away is no error here: then there is nothing known beyond SQL.
"""

import logging
from collections.abc import Mapping, Sequence

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from schemas.messages import Mention
from shared.hot import fresh_key, key_of

log = logging.getLogger(__name__)

# KEYS: conversations, but for the first: the user's fresh ones. ARGV: for each conversation the `seq` after which.
_READ = """
local out = {redis.call('SMEMBERS', KEYS[1])}
for i = 2, #KEYS do
    out[i] = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. ARGV[i - 1], '+inf')
end
return out
"""


class Cached(msgspec.Struct):
    """What of a cached message matters for counting it, and for the place of its conversation."""

    seq: int
    sender_id: int
    msg_type: int
    status: int
    timestamp: int
    mentions: list[Mention] = []


Tail = Sequence[tuple[Cached, bytes]]
"""Messages after one `seq`, ascending, decoded and as JSON."""

_decode = msgspec.json.Decoder(Cached).decode


class Tails:
    """Implements `listing.Unstored`."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_READ)

    async def read(
        self, user_id: int, wanted: Mapping[str, int]
    ) -> tuple[frozenset[str] | None, dict[str, Tail]]:
        """See `listing.Unstored.read`."""
        try:
            fresh, *found = await self._script(
                keys=[fresh_key(user_id), *map(key_of, wanted)], args=list(wanted.values())
            )
        except (RedisError, OSError) as error:
            log.warning("redis is not reached, counting what is stored: %s", error)
            return None, {}
        return frozenset(c.decode() for c in fresh), {
            conversation_id: [(_decode(m), m) for m in messages]
            for conversation_id, messages in zip(wanted, found, strict=True)
        }
