"""Users and pairs of users: what the gate knows of them, and how SQL says it."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Self

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from shared import tables
from shared.gate.copies import Copies, Loader
from shared.gate.keys import pair_key, user_key

EXISTS = "1"
FRIENDS, LOWER_BLOCKS, HIGHER_BLOCKS = 1, 2, 4
"""Bits of a pair's value, which is one digit; lower and higher by user id."""

Pair = tuple[int, int]
"""Lower and higher user id."""


class Relation(NamedTuple):
    """What two users are to each other, as seen by one of them."""

    friends: bool
    blocking: bool
    """He has blocked the other."""
    blocked: bool
    """The other has blocked him."""

    @classmethod
    def read(cls, value: str, user_id: int, peer: int) -> Self:
        """From a pair's value, as `user_id` sees it."""
        bits = int(value)
        own, others = LOWER_BLOCKS, HIGHER_BLOCKS
        if user_id > peer:
            own, others = others, own
        return cls(bool(bits & FRIENDS), bool(bits & own), bool(bits & others))

    @property
    def open_friends(self) -> bool:
        """Friends, and neither blocks the other: they may see of each other what strangers may not."""
        return self == (True, False, False)


class People:
    """Loads what Redis does not know."""

    def __init__(self, copies: Copies, engine: AsyncEngine) -> None:
        self._engine = engine
        self.users: Loader[int] = Loader(copies, user_key, self._existing)
        self.pairs: Loader[Pair] = Loader(copies, lambda pair: pair_key(*pair), self._relations)

    async def _existing(self, user_ids: Collection[int]) -> Mapping[int, str]:
        query = select(tables.user.c.id).where(
            tables.user.c.id.in_(user_ids), tables.user.c.deleted_ms.is_(None)
        )
        async with self._engine.connect() as connection:
            return dict.fromkeys((await connection.execute(query)).scalars(), EXISTS)

    async def _relations(self, pairs: Collection[Pair]) -> Mapping[Pair, str]:
        row = tables.friendship.c
        query = select(row.user_id, row.friend_id, row.status, row.friends_ms).where(
            tuple_(row.user_id, row.friend_id).in_(
                [way for lower, higher in pairs for way in ((lower, higher), (higher, lower))]
            )
        )
        bits = dict.fromkeys(pairs, 0)
        async with self._engine.connect() as connection:
            for user_id, friend_id, status, friends_ms in await connection.execute(query):
                pair = min(user_id, friend_id), max(user_id, friend_id)
                if friends_ms is not None:
                    bits[pair] |= FRIENDS
                if status == tables.BLOCKED:
                    bits[pair] |= LOWER_BLOCKS if user_id == pair[0] else HIGHER_BLOCKS
        return {pair: str(value) for pair, value in bits.items()}
