"""The commands of `friend_apply`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas.events import FriendAccepted, FriendApplied, FriendRejected
from schemas.friends import (
    AcceptApplication,
    Application,
    Applications,
    ApplyFriend,
    Friend,
    ListApplications,
    RejectApplication,
)
from schemas.types import MAX_NUMBER
from shared.errors import BadRequest
from shared.function import Context, Outcome, Push, to_user
from shared.gate import APPLICATIONS, Gate, pair_key


class Befriended(NamedTuple):
    """A friendship that began, once for each of the two: what he sees of the other, and his list's version."""

    user_id: int
    application_id: int
    friend: Friend
    version: int


class Applied(NamedTuple):
    """What became of `friend.apply`.

    told: who is to hear of it (the receiver not, if he has blocked the applicant). befriended: for both, if the other
    had applied before.
    """

    application: Application
    told: tuple[int, ...] = ()
    befriended: tuple[Befriended, ...] = ()


class ApplicationStore(Protocol):
    """Applications in SQL. All raise Unavailable; what writes, NotFound, Unauthenticated and UnknownOutcome too."""

    async def apply(self, user_id: int, peer: int, greeting: str, now_ms: int) -> Applied:
        """Raises: Blocked if `user_id` has blocked the peer; Conflict if they are friends."""

    async def page(
        self, user_id: int, direction: str | None, before: int | None, limit: int, now_ms: int
    ) -> Sequence[Application]:
        """Those that he may see, newest first."""

    async def accept(
        self, user_id: int, application_id: int, now_ms: int
    ) -> tuple[Friend, tuple[Befriended, ...]]:
        """The new friend, and both sides if that is news. Raises: NotFound; Conflict if it was answered otherwise."""

    async def reject(
        self, user_id: int, application_id: int, now_ms: int
    ) -> tuple[Application, bool]:
        """The application, and whether that is news. Raises: NotFound; Conflict if it was accepted or has expired."""


class Deps(msgspec.Struct, frozen=True):
    """What `friend_apply` needs."""

    applications: ApplicationStore
    gate: Gate


async def apply(cmd: ApplyFriend, ctx: Context[Deps]) -> Outcome[Application]:
    """Whoever was blocked gets the same answers as anybody else."""
    if cmd.user_id == ctx.user_id:
        raise BadRequest("that is yourself", field="user_id")
    await ctx.deps.gate.limit(APPLICATIONS, ctx.user_id)
    applied = await ctx.deps.applications.apply(ctx.user_id, cmd.user_id, cmd.greeting, ctx.at)
    event = FriendApplied(applied.application)
    pushes = (
        *(to_user(user_id, event) for user_id in applied.told),
        *_told(applied.befriended),
    )
    if applied.application.status == "accepted":
        await ctx.deps.gate.copies.forget(pair_key(ctx.user_id, cmd.user_id))
    return Outcome(applied.application, pushes=pushes)


async def list_applications(cmd: ListApplications, ctx: Context[Deps]) -> Outcome[Applications]:
    """From and to oneself."""
    before = None if cmd.cursor is None else _position(cmd.cursor)
    found = await ctx.deps.applications.page(
        ctx.user_id, cmd.direction, before, cmd.limit + 1, ctx.at
    )
    page, more = list(found[: cmd.limit]), len(found) > cmd.limit
    return Outcome(Applications(page, str(page[-1].id) if more else None))


async def accept(cmd: AcceptApplication, ctx: Context[Deps]) -> Outcome[Friend]:
    """Both may write to each other from the answer on."""
    friend, befriended = await ctx.deps.applications.accept(ctx.user_id, cmd.id, ctx.at)
    await ctx.deps.gate.copies.forget(pair_key(ctx.user_id, friend.user_id))
    return Outcome(friend, pushes=_told(befriended))


async def reject(cmd: RejectApplication, ctx: Context[Deps]) -> Outcome[Application]:
    """The applicant hears of it, and may apply again."""
    application, news = await ctx.deps.applications.reject(ctx.user_id, cmd.id, ctx.at)
    event = FriendRejected(application)
    both = (application.from_user_id, application.to_user_id) if news else ()
    return Outcome(application, pushes=tuple(to_user(user_id, event) for user_id in both))


def _told(befriended: Sequence[Befriended]) -> tuple[Push, ...]:
    return tuple(
        to_user(side.user_id, FriendAccepted(side.application_id, side.friend, side.version))
        for side in befriended
    )


def _position(cursor: str) -> int:
    if not (
        cursor.isascii() and cursor.isdecimal() and len(cursor) < 17 and int(cursor) <= MAX_NUMBER
    ):
        raise BadRequest("not a cursor of this list", field="cursor")
    return int(cursor)
