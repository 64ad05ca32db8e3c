"""`auth.register`, `auth.login` and `auth.change_password`: what a password opens."""

from functions.auth.deps import Account, Deps, NewAccount, NewSession
from functions.auth.refresh import LIFETIME_MS, digest, mint
from functions.auth.tokens import LIFETIME_S
from schemas.auth import ChangePassword, Login, Register, Tokens
from schemas.types import Empty
from schemas.users import Me
from shared.errors import Conflict, Forbidden, Unauthenticated
from shared.function import Context, Outcome
from shared.ids import random_token
from shared.names import fold, nickname_key, username_key
from shared.sessions import kicked


async def register(cmd: Register, ctx: Context[Deps]) -> Outcome[Me]:
    """Creates an account; of two at once with one name, one gets `conflict`."""
    deps = ctx.deps
    if not deps.registration_open:
        raise Forbidden("registration is closed")
    nickname = cmd.nickname or cmd.username
    name, nick = username_key(cmd.username), nickname_key(nickname)
    if await deps.accounts.name_taken(name):  # spares the hash; what decides is the unique key
        raise Conflict("this username is taken", field="username")
    password_hash = await deps.passwords.hash(cmd.password)
    user_id = await deps.accounts.create(
        NewAccount(cmd.username, name, nickname, nick, password_hash, ctx.at)
    )
    return Outcome(Me(user_id, cmd.username, nickname, created_at=ctx.at))


async def login(cmd: Login, ctx: Context[Deps]) -> Outcome[Tokens]:
    """Opens a session. Nothing in answer or time tells an unknown user from a wrong password."""
    deps = ctx.deps
    name = fold(cmd.username)
    account = await deps.accounts.by_name(name)
    tries = f"login:{name}"
    await deps.throttle.take(tries)
    stored = account.password_hash if account else None
    if not await deps.passwords.verify(cmd.password, stored) or account is None:
        raise Unauthenticated("wrong username or password")
    tokens, ended = await _open_session(account, cmd, ctx)
    await deps.throttle.clear(tries)
    return Outcome(tokens, pushes=kicked(account.me.user_id, ended, "replaced"))


async def change_password(cmd: ChangePassword, ctx: Context[Deps]) -> Outcome[Empty]:
    """Sets a new password and ends all other sessions, whoever opened them."""
    deps = ctx.deps
    account = await deps.accounts.by_id(ctx.user_id)
    if account is None:
        raise Unauthenticated("this account is deleted")
    tries = f"password:{ctx.user_id}"
    await deps.throttle.take(tries)
    if not await deps.passwords.verify(cmd.old_password, account.password_hash):
        raise Forbidden("wrong password", field="old_password")
    new_hash = await deps.passwords.hash(cmd.new_password)
    ended = await deps.accounts.change_password(
        ctx.user_id, account.password_hash, new_hash, ctx.session, ctx.at
    )
    if ended is None:
        raise Forbidden("the password was changed meanwhile", field="old_password")
    await deps.throttle.clear(tries)
    return Outcome(Empty(), pushes=kicked(ctx.user_id, ended, "password_changed"))


async def _open_session(
    account: Account, cmd: Login, ctx: Context[Deps]
) -> tuple[Tokens, list[str]]:
    """A new session's tokens, and the older sessions of the same device, which have ended."""
    session_id = random_token()
    refresh_token = mint(session_id, 1)
    new = NewSession(
        session_id,
        account.me.user_id,
        cmd.device_id,
        cmd.platform,
        digest(refresh_token),
        created_ms=ctx.at,
        expires_ms=ctx.at + LIFETIME_MS,
    )
    ended = await ctx.deps.sessions.open(new, account.password_hash)
    if ended is None:
        raise Unauthenticated("wrong username or password")  # it was changed while we verified it
    access_token = ctx.deps.signer.sign(account.me.user_id, session_id, ctx.at)
    return Tokens(access_token, refresh_token, LIFETIME_S, account.me), ended
