"""The commands of `friends`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from schemas.events import FriendDeleted, FriendUpdated
from schemas.friends import (
    BlockedUsers,
    BlockUser,
    DeleteFriend,
    Friend,
    Friends,
    ListBlocked,
    ListFriends,
    RemarkFriend,
    UnblockUser,
)
from schemas.types import MAX_NUMBER, Empty
from shared.errors import BadRequest, UnknownOutcome
from shared.function import Context, Outcome, Push, to_user
from shared.gate import Copies, pair_key


class Listed(NamedTuple):
    """One row of a list: `friend` with since None is a friend no more."""

    friend: Friend
    version: int


class Updated(NamedTuple):
    """What one sees of somebody now. `version` None: it was so before."""

    friend: Friend
    version: int | None


class FriendStore(Protocol):
    """Friends in SQL. All raise Unavailable; what writes, NotFound, Unauthenticated and UnknownOutcome too."""

    async def changed(
        self, user_id: int, after: int, limit: int, *, gone: bool
    ) -> tuple[Sequence[Listed], int]:
        """Rows after a version, ascending, and the version they are at least right up to; `gone`: former friends,
        too.
        """

    async def blocked(self, user_id: int, after: int, limit: int) -> Sequence[Friend]:
        """By ascending user id, greater than `after`."""

    async def remark(self, user_id: int, peer: int, remark: str) -> Updated:
        """Gives a friend another name. Raises: NotFound if he is none."""

    async def delete(self, user_id: int, peer: int, now_ms: int) -> tuple[int, int] | None:
        """Ends a friendship; the new versions of both lists, None if there was none."""

    async def block(self, user_id: int, peer: int, now_ms: int) -> Updated:
        """Blocks; applications between the two that wait for an answer end."""

    async def unblock(self, user_id: int, peer: int, now_ms: int) -> Updated | None:
        """None: he was not blocked."""


class Deps(msgspec.Struct, frozen=True):
    """What `friends` needs."""

    friends: FriendStore
    copies: Copies


async def list_friends(cmd: ListFriends, ctx: Context[Deps]) -> Outcome[Friends]:
    """A whole list in pages, or what changed after a version. Both go by version: a row that changes while one reads
    comes again, none is missed.
    """
    known = cmd.after_version
    after = (known or 0) if cmd.cursor is None else _position(cmd.cursor)
    rows, version = await ctx.deps.friends.changed(
        ctx.user_id, after, cmd.limit + 1, gone=known is not None
    )
    page, more = rows[: cmd.limit], len(rows) > cmd.limit
    return Outcome(
        Friends(
            [row.friend for row in page if row.friend.since is not None],
            [row.friend.user_id for row in page if row.friend.since is None],
            version,
            str(page[-1].version) if more else None,
        )
    )


async def list_blocked(cmd: ListBlocked, ctx: Context[Deps]) -> Outcome[BlockedUsers]:
    """Whom one has blocked."""
    after = 0 if cmd.cursor is None else _position(cmd.cursor)
    found = await ctx.deps.friends.blocked(ctx.user_id, after, cmd.limit + 1)
    page, more = list(found[: cmd.limit]), len(found) > cmd.limit
    return Outcome(BlockedUsers(page, str(page[-1].user_id) if more else None))


async def remark(cmd: RemarkFriend, ctx: Context[Deps]) -> Outcome[Friend]:
    """One's own name for a friend."""
    updated = await ctx.deps.friends.remark(ctx.user_id, cmd.id, cmd.remark)
    return Outcome(updated.friend, pushes=_told(ctx, updated))


async def delete(cmd: DeleteFriend, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends a friendship for both; a repeat changes nothing."""
    versions = await ctx.deps.friends.delete(ctx.user_id, cmd.id, ctx.at)
    pushes: tuple[Push, ...] = ()
    if versions is not None:
        own, peers = versions
        pushes = (
            to_user(ctx.user_id, FriendDeleted(cmd.id, own)),
            to_user(cmd.id, FriendDeleted(ctx.user_id, peers)),
        )
    return await _narrowed(ctx, cmd.id, pushes)


async def block(cmd: BlockUser, ctx: Context[Deps]) -> Outcome[Empty]:
    """Nothing that passed the gate after this answer is from the one who is blocked. He is not told."""
    _not_oneself(cmd.id, ctx)
    updated = await ctx.deps.friends.block(ctx.user_id, cmd.id, ctx.at)
    return await _narrowed(ctx, cmd.id, _told(ctx, updated))


async def unblock(cmd: UnblockUser, ctx: Context[Deps]) -> Outcome[Empty]:
    """Takes a block back; a friendship goes on where it was."""
    _not_oneself(cmd.id, ctx)
    updated = await ctx.deps.friends.unblock(ctx.user_id, cmd.id, ctx.at)
    await ctx.deps.copies.forget(pair_key(ctx.user_id, cmd.id))
    return Outcome(Empty(), pushes=() if updated is None else _told(ctx, updated))


async def _narrowed(ctx: Context[Deps], peer: int, pushes: tuple[Push, ...]) -> Outcome[Empty]:
    """Answers when no copy grants the old right any more. A repeat comes here too: the first try may have crashed."""
    try:
        await ctx.deps.copies.withdraw(pair_key(ctx.user_id, peer))
    except UnknownOutcome as error:
        return Outcome(None, pushes=pushes, error=error)
    return Outcome(Empty(), pushes=pushes)


def _told(ctx: Context[Deps], updated: Updated) -> tuple[Push, ...]:
    """One's own devices, if anything is new."""
    if updated.version is None:
        return ()
    return (to_user(ctx.user_id, FriendUpdated(updated.friend, updated.version)),)


def _not_oneself(peer: int, ctx: Context[Deps]) -> None:
    if peer == ctx.user_id:
        raise BadRequest("that is yourself", field="id")


def _position(cursor: str) -> int:
    if not (
        cursor.isascii() and cursor.isdecimal() and len(cursor) < 17 and int(cursor) <= MAX_NUMBER
    ):
        raise BadRequest("not a cursor of this list", field="cursor")
    return int(cursor)
