"""The gate itself: what functions ask before they do anything."""

from typing import Self

import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.rights import Role, allowed
from shared.errors import (
    Blocked,
    Muted,
    NotFound,
    NotFriend,
    NotMember,
    RateLimited,
    Unauthenticated,
)
from shared.gate.copies import Answer, Copies, Limit
from shared.gate.groups import OPEN, QUIET, GroupCopies, Standing
from shared.gate.keys import group_key, member_key, pair_key, user_key
from shared.gate.people import EXISTS, FRIENDS, People, Relation
from shared.ids import now_ms
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
        self._groups = GroupCopies(self.copies, engine)
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

    async def group(self, sender: int, group_id: int, limit: str = MESSAGES) -> Role:
        """Returns what `sender` is in the group if he may write there now; counts it towards the limit.

        Raises: RateLimited; Unauthenticated if the sender's account is gone; NotFound for the group; NotMember; Muted;
        Unavailable.
        """
        return await self._writing(
            sender, group_id, self._limits.get(limit), f"im:{limit}:{sender}"
        )

    async def may_write(self, user_id: int, group_id: int) -> Role:
        """As `group`, without a limit: for what changes messages that are there."""
        return await self._writing(user_id, group_id, None, "")

    async def member(self, user_id: int, group_id: int) -> Role:
        """What a member is in the group; he may read, and may be muted.

        Raises: Unauthenticated if the user's account is gone; NotFound for the group; NotMember; Unavailable.
        """
        answer = await self.copies.ask(
            None, "", user_key(user_id), group_key(group_id), member_key(group_id, user_id)
        )
        _, standing = await self._standing(user_id, group_id, answer)
        return standing.role

    async def _writing(
        self, user_id: int, group_id: int, limit: Limit | None, limit_key: str
    ) -> Role:
        answer = await self.copies.ask(
            limit, limit_key, user_key(user_id), group_key(group_id), member_key(group_id, user_id)
        )
        _check_limit(answer)
        role = _FREE.get(answer.values)
        if role is not None:
            return role
        quiet, standing = await self._standing(user_id, group_id, answer)
        if standing.muted_ms and standing.muted_ms > now_ms():
            raise Muted(f"you are muted in this group until {standing.muted_ms}")
        if quiet and not allowed("write_muted", standing.role):
            raise Muted("only the owner and admins may write in this group now")
        return standing.role

    async def _standing(self, user_id: int, group_id: int, answer: Answer) -> tuple[bool, Standing]:
        """Whether the group is muted as a whole, and what the user is in it."""
        own, group, seat = answer.values.decode().split("|")
        nonce = answer.nonce
        if not own and await self._people.users.load(user_id, nonce) is None:
            raise Unauthenticated("this account is deleted")
        living = group or await self._groups.groups.load(group_id, nonce)
        if living is None:
            raise NotFound(f"no group {group_id}", field="group_id")
        value = seat or await self._groups.seats.load((group_id, user_id), nonce)
        assert value is not None, "every seat has a value"
        standing = Standing.read(value)
        if standing is None:
            raise NotMember(f"you are no member of group {group_id}", field="group_id")
        return living == QUIET, standing


def _check_limit(answer: Answer) -> None:
    if answer.wait_ms:
        raise RateLimited("too many at once", retry_after_ms=answer.wait_ms)


_FREE = {
    f"{EXISTS}|{group}|{role:d}".encode(): role
    for role in Role
    for group in (OPEN, QUIET)
    if group == OPEN or allowed("write_muted", role)
}
"""What the copies say of (sender, group, seat) when nothing is in the way."""
