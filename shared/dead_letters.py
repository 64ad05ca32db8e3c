"""Dead letters: records that cannot be applied, kept in `im.dead` with the reason."""

import msgspec

from shared.log import Record

MAX_KEPT = 128 << 10
"""Bytes of a record that are kept: in base64 they still fit into one."""


def dead_letter(topic: str, record: Record, reason: str) -> bytes:
    """The value of a record in `im.dead`: where it stood, why it is there, its bytes (at most MAX_KEPT) in base64."""
    return msgspec.json.encode(
        {
            "topic": topic,
            "partition": record.partition,
            "offset": record.offset,
            "ms": record.ms,
            "reason": reason,
            "size": len(record.value),
            "value": record.value[:MAX_KEPT],
        }
    )
