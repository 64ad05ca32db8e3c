"""Ids: Snowflakes of messages, names of conversations, random tokens."""

import secrets
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

EPOCH_MS = 1_735_689_600_000
"""Start of Snowflake time: 2025-01-01T00:00:00Z. 41 bits of milliseconds last until 2094."""
MAX_PARTITION = (1 << 10) - 1
MAX_COUNTER = (1 << 12) - 1
MAX_ID = (1 << 63) - 1
"""Largest Snowflake that a column of SQL holds; texts of ids from outside may name larger ones."""


def now_ms() -> int:
    """This machine's Unix time in ms. Never decides anything in the timeline, which goes by the log's time."""
    return time.time_ns() // 1_000_000


def snowflake(ms: int, partition: int, counter: int) -> int:
    """41 bits time since EPOCH_MS, 10 bits partition of the log, 12 bits counter."""
    return (ms - EPOCH_MS) << 22 | partition << 12 | counter


def snowflake_ms(msg_id: int) -> int:
    """Unix ms inside a Snowflake: the message's timestamp."""
    return (msg_id >> 22) + EPOCH_MS


def snowflake_partition(msg_id: int) -> int:
    """The partition of the log inside a Snowflake."""
    return msg_id >> 12 & 1023


def month_of(ms: int) -> int:
    """The UTC month of a Unix ms as a number: 202611. Names the table `message_202611`."""
    return _month_of_day(ms // 86_400_000)


@lru_cache(8)
def _month_of_day(day: int) -> int:
    date = datetime.fromtimestamp(day * 86_400, UTC)
    return date.year * 100 + date.month


def timestamp_text(second: int) -> str:
    """A Unix time in seconds as `created_at` columns hold it, in UTC, to be followed by `.` and the milliseconds."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")


def created_at(ms: int) -> str:
    """A Unix time in ms as `created_at` columns hold it."""
    return f"{timestamp_text(ms // 1000)}.{ms % 1000:03}"


class Private(NamedTuple):
    """Members of a private conversation, `lower` < `higher`."""

    lower: int
    higher: int

    def other(self, user_id: int) -> int:
        """The peer of one of the two."""
        return self.higher if user_id == self.lower else self.lower


def private_conversation(a: int, b: int) -> str:
    """`p_<lower>_<higher>`."""
    return f"p_{a}_{b}" if a < b else f"p_{b}_{a}"


@lru_cache(100_000)  # it stands on the road of every message
def members_of_private(conversation_id: str) -> Private | None:
    """The two users of `p_<lower>_<higher>`, or None if it is no well-formed private conversation."""
    kind, _, rest = conversation_id.partition("_")
    lower, _, higher = rest.partition("_")
    if kind != "p" or not (lower.isdecimal() and higher.isdecimal()):
        return None
    pair = Private(int(lower), int(higher))
    return (
        pair
        if pair.lower < pair.higher and conversation_id == private_conversation(*pair)
        else None
    )


def group_of(conversation_id: str) -> int | None:
    """The group of `g_<gid>`, or None if it is no well-formed group conversation."""
    kind, _, number = conversation_id.partition("_")
    if kind != "g" or not (number.isdecimal() and number.isascii() and number[0] != "0"):
        return None
    return int(number)


def random_token() -> str:
    """128 random bits, safe in a subject and a URL."""
    return secrets.token_urlsafe(16)
