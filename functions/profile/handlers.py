"""The commands of `profile`."""

import msgspec
from msgspec import UNSET

from functions.profile.deps import Changes, Deps
from schemas.types import MAX_NUMBER, Empty
from schemas.users import DeleteMe, GetMe, GetUser, Me, SearchUsers, UpdateMe, User, Users
from shared.errors import BadRequest, Forbidden, NotFound, Unauthenticated, Unavailable
from shared.function import Context, Outcome
from shared.names import fold, nickname_key
from shared.sessions import kicked

DELETED = "this account is deleted"


async def me(_cmd: GetMe, ctx: Context[Deps]) -> Outcome[Me]:
    """One's own profile."""
    return Outcome(await _me(ctx))


async def update(cmd: UpdateMe, ctx: Context[Deps]) -> Outcome[Me]:
    """Changes one's own profile and returns it."""
    changes = Changes(avatar=cmd.avatar)
    if cmd.nickname is not UNSET:
        changes = msgspec.structs.replace(
            changes, nickname=cmd.nickname, nickname_key=nickname_key(cmd.nickname)
        )
    if changes != Changes():
        await ctx.deps.profiles.update(ctx.user_id, changes)
    return Outcome(await _me(ctx))


async def get(cmd: GetUser, ctx: Context[Deps]) -> Outcome[User]:
    """Anybody's profile, with what he is to the one who asks."""
    found = await ctx.deps.profiles.get(cmd.id, ctx.user_id)
    if found is None:
        raise NotFound(f"no user {cmd.id}", field="id")
    return Outcome(await _with_presence(found.user, ctx) if found.private else found.user)


async def search(cmd: SearchUsers, ctx: Context[Deps]) -> Outcome[Users]:
    """Users by the start of their name or nickname, without case, oldest account first."""
    after = 0 if cmd.cursor is None else _position(cmd.cursor)
    found = await ctx.deps.profiles.search(fold(cmd.q), after, cmd.limit + 1, ctx.user_id)
    page = list(found[: cmd.limit])
    return Outcome(Users(page, str(page[-1].user_id) if len(found) > cmd.limit else None))


async def delete(cmd: DeleteMe, ctx: Context[Deps]) -> Outcome[Empty]:
    """Deletes one's own account for ever: the name is free again, all sessions end, groups are left."""
    deps = ctx.deps
    stored = await deps.profiles.password_hash(ctx.user_id)
    if stored is None:
        raise Unauthenticated(DELETED)
    tries = f"password:{ctx.user_id}"
    await deps.throttle.take(tries)
    if not await deps.passwords.verify(cmd.password, stored):
        raise Forbidden("wrong password", field="password")
    ended = await deps.profiles.delete(ctx.user_id, stored, ctx.at)
    if ended is None:
        raise Forbidden("the password was changed meanwhile", field="password")
    await deps.throttle.clear(tries)
    return Outcome(Empty(), pushes=kicked(ctx.user_id, ended, "account_deleted"))


async def _me(ctx: Context[Deps]) -> Me:
    found = await ctx.deps.profiles.me(ctx.user_id)
    if found is None:
        raise Unauthenticated(DELETED)
    return found


async def _with_presence(user: User, ctx: Context[Deps]) -> User:
    """What only friends see; without Redis it is left out."""
    try:
        (now,) = await ctx.deps.presence.read([user.user_id])
    except Unavailable:
        return user
    return msgspec.structs.replace(user, online=now.online, last_seen=now.last_seen)


def _position(cursor: str) -> int:
    if not (
        cursor.isascii() and cursor.isdecimal() and len(cursor) < 17 and int(cursor) <= MAX_NUMBER
    ):
        raise BadRequest("not a cursor of this list", field="cursor")
    return int(cursor)
