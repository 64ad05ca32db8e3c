"""What a COMMIT ran into: rows that are there already, the same ones or others."""

import logging
from collections.abc import Mapping

from sqlalchemy import and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from functions.timeline.pending import Pending
from shared import tables

log = logging.getLogger(__name__)

_KEY = tables.message_key.c
_IDENTITY = ("id", "conversation_id", "seq", "sender_id", "client_msg_id")
"""Columns of a message that never change; the key's digest vouches for the content."""


class ClashError(Exception):
    """These messages (partition → ids) cannot be stored, and `reason` says why."""

    def __init__(
        self,
        clashes: Mapping[int, set[int]],
        reason: str = "another one is stored in its place",
    ) -> None:
        self.clashes = clashes
        self.reason = reason
        super().__init__(f"{reason}: {dict(clashes)}")


async def explain(
    connection: AsyncConnection, batch: Mapping[int, Pending], error: IntegrityError
) -> None:
    """Finds the rows that are there already, and leaves them out of the batch if they are the same ones.

    Raises: ClashError if others are in their place; the given error if there are none.
    """
    clashes: dict[int, set[int]] = {}
    same = 0
    for partition, pending in batch.items():
        replayed, others = await _compare(connection, pending)
        same += len(replayed)
        if others:
            clashes[partition] = others
        elif replayed:
            pending.drop(replayed)
    if clashes:
        raise ClashError(clashes) from error
    if not same:
        raise error
    log.warning("%d rows were stored already, the same ones", same)


async def _compare(connection: AsyncConnection, pending: Pending) -> tuple[set[int], set[int]]:
    """Ids of the pending messages whose row or key is stored: (the same, another one)."""
    same: set[int] = set()
    others: set[int] = set()
    keys = {row[2]: row for row in pending.keys}
    for month, rows in pending.messages.items():
        c = tables.message_table(month).c
        places = [(name, c.keys().index(name)) for name in _IDENTITY]
        for row in rows:
            mine = {name: row[place] for name, place in places}
            at_its_place = or_(c.id == row[0], and_(c.conversation_id == row[2], c.seq == row[10]))
            found = await connection.execute(
                select(*(c[name] for name in _IDENTITY)).where(at_its_place)
            )
            there = found.mappings().all()
            key = keys[row[0]]
            stored = select(_KEY.key, _KEY.digest, _KEY.msg_id, _KEY.seq).where(_KEY.key == key[0])
            keyed = (await connection.execute(stored)).all()
            if any(dict(one) != mine for one in there) or any(tuple(one) != key for one in keyed):
                others.add(row[0])
            elif there and keyed:
                same.add(row[0])
            elif there or keyed:
                others.add(row[0])
    return same, others
