"""The gate itself: what functions ask before they do anything."""

from typing import Self

import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import Blocked, NotFound, NotFriend, RateLimited, Unauthenticated
from shared.gate.copies import Answer, Copies, Limit
from shared.gate.keys import pair_key, user_key
from shared.gate.people import FRIENDS, People, Relation
from shared.resources import Resources

MESSAGES = "limit"
"""The limit on messages, which all that a user writes into conversations shares."""
APPLICATIONS = "apply"
"""The limit on applications to become friends."""
TYPING = "typing"
"""The limit on signs of typing."""
POSITIONS = "positions"
"""The limit on what devices say about how far they are."""
LIMITS = {
    MESSAGES: Limit(interval_ms=50, burst=100),
    APPLICATIONS: Limit(interval_ms=60_000, burst=30),
    POSITIONS: Limit(interval_ms=20, burst=200),
    TYPING: Limit(interval_ms=500, burst=10),
}
"""By name, which is part of their keys `im:<name>:<user id>`."""


class Gate:
    """Says whether a command may pass now, on Redis and SQL."""

    def __init__(
        self, client: redis.asyncio.Redis, engine: AsyncEngine, *, limits: bool, strangers: bool
    ) -> None:
        """limits: IM_RATE_LIMITS. strangers: whether those who are no friends may write to each other."""
        self.copies = Copies(client)
        self._limits = LIMITS if limits else {}
        self._strangers = strangers
        self._people = People(self.copies, engine)
        # What the copies say of (sender, receiver, pair) when nothing is in the way.
        self._open = {b"1|1|%d" % FRIENDS, *([b"1|1|0"] if strangers else [])}

    @classmethod
    def of(cls, resources: Resources) -> Self:
        """With the connections of this process and its settings."""
        settings = resources.settings
        return cls(
            resources.redis(),
            resources.engine(),
            limits=settings.rate_limits,
            strangers=settings.strangers,
        )

    async def private(self, sender: int, receiver: int, limit: str = MESSAGES) -> None:
        """Returns if `sender` may write to `receiver` now; counts it towards the limit.

        Raises: RateLimited; Unauthenticated if the sender's account is gone; NotFound for the receiver; Blocked;
        NotFriend; Unavailable.
        """
        answer = await self.copies.ask(
            self._limits.get(limit),
            f"im:{limit}:{sender}",
            user_key(sender),
            user_key(receiver),
            pair_key(sender, receiver),
        )
        _check_limit(answer)
        if answer.values not in self._open:
            relation = await self._relation(sender, receiver, answer)
            if relation.blocking:
                raise Blocked("you have blocked this user")
            if relation.blocked:
                raise Blocked("this user has blocked you")
            if not (relation.friends or self._strangers):
                raise NotFriend("you are no friends: apply first, and write when he has accepted")

    async def limit(self, name: str, user_id: int) -> None:
        """Counts what a user does towards one of the limits. Raises: RateLimited."""
        if (rate := self._limits.get(name)) is not None:
            _check_limit(await self.copies.ask(rate, f"im:{name}:{user_id}"))

    async def relation(self, user_id: int, peer: int) -> Relation:
        """What the two are to each other, without a limit.

        Raises: Unauthenticated if the account of `user_id` is gone; NotFound for `peer`; Unavailable.
        """
        answer = await self.copies.ask(
            None, "", user_key(user_id), user_key(peer), pair_key(user_id, peer)
        )
        return await self._relation(user_id, peer, answer)

    async def _relation(self, user_id: int, peer: int, answer: Answer) -> Relation:
        own, others, pair = answer.values.decode().split("|")
        people, nonce = self._people, answer.nonce
        if not own and await people.users.load(user_id, nonce) is None:
            raise Unauthenticated("this account is deleted")
        if not others and await people.users.load(peer, nonce) is None:
            raise NotFound(f"no user {peer}", field="receiver_id")
        if not pair:
            loaded = await people.pairs.load((min(user_id, peer), max(user_id, peer)), nonce)
            assert loaded is not None, "every pair has a value"
            pair = loaded
        return Relation.read(pair, user_id, peer)


def _check_limit(answer: Answer) -> None:
    if answer.wait_ms:
        raise RateLimited("too many at once", retry_after_ms=answer.wait_ms)
