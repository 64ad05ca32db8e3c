"""Ids that the client makes: UUIDv7 for messages, and names of private conversations."""

import os
import time
from uuid import UUID


def uuid7() -> str:
    """48 bits Unix ms, then random bits (RFC 9562): unique, and sorted by time in every log and index."""
    value = int.from_bytes(os.urandom(10), "big") | (time.time_ns() // 1_000_000) << 80
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def private_conversation(a: int, b: int) -> str:
    """`p_<lower>_<higher>`."""
    return f"p_{min(a, b)}_{max(a, b)}"
