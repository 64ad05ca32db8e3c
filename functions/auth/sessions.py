"""The life of a session: `auth.refresh`, `logout`, `sessions`, `revoke_session`."""

import logging

import msgspec

from functions.auth.deps import Deps
from functions.auth.refresh import Meaning, SessionState, judge, mint, session_of, successor
from functions.auth.tokens import LIFETIME_S
from schemas.auth import (
    ListSessions,
    Logout,
    Refresh,
    RevokeSession,
    Sessions,
    Tokens,
)
from schemas.internal import CheckSessions, EndedSessions
from schemas.types import Empty
from shared.errors import BadRequest, NotFound, Unauthenticated, Unavailable
from shared.function import Context, Outcome
from shared.sessions import kicked
from shared.subjects import is_token
from shared.telemetry import about

log = logging.getLogger(__name__)

ROUNDS = 5
"""Tries against other refreshes of the same session before we ask the client to come again."""


async def refresh(cmd: Refresh, ctx: Context[Deps]) -> Outcome[Tokens]:
    """Trades a refresh token for the next pair. A token that was copied ends its session."""
    token = cmd.refresh_token
    session_id = session_of(token)
    for _ in range(ROUNDS):
        state = await ctx.deps.sessions.load(session_id) if session_id else None
        meaning = judge(state, token, ctx.at)
        if state is None or meaning is Meaning.INVALID:
            raise Unauthenticated("the refresh token is not valid; log in again")
        if meaning is Meaning.REUSED:
            return await _end_stolen(state, ctx)
        new_token = mint(state.session_id, state.generation + 1)
        if await ctx.deps.sessions.rotate(
            state, successor(state, meaning, new_token, ctx.at), ctx.at
        ):
            return await _pair(state, new_token, ctx)
    raise Unavailable(
        "too many refreshes of this session at once; nothing happened", retry_after_ms=100
    )


async def logout(cmd: Logout, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends the session of the access token, also if it has ended already; or a named one."""
    if cmd.session_id is not None and cmd.session_id != ctx.session:
        return await _end(cmd.session_id, ctx, "revoked")
    if not ctx.session:
        raise BadRequest("no session to end", field="session_id")
    await ctx.deps.sessions.end(ctx.user_id, ctx.session, ctx.at)
    return Outcome(Empty(), pushes=kicked(ctx.user_id, [ctx.session], "logged_out"))


async def revoke_session(cmd: RevokeSession, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends one of one's own sessions."""
    return await _end(cmd.id, ctx, "revoked")


async def check(cmd: CheckSessions, ctx: Context[Deps]) -> Outcome[EndedSessions]:
    """Which sessions have ended although their access tokens are still good. The edge kicks those."""
    return Outcome(EndedSessions(await ctx.deps.sessions.ended(cmd.sessions)))


async def list_sessions(cmd: ListSessions, ctx: Context[Deps]) -> Outcome[Sessions]:
    """One's own live sessions, newest first."""
    before = None if cmd.cursor is None else _position(cmd.cursor)
    found = await ctx.deps.sessions.live(ctx.user_id, ctx.at, before, cmd.limit + 1)
    page = [
        msgspec.structs.replace(s, current=s.session_id == ctx.session) for s in found[: cmd.limit]
    ]
    more = len(found) > cmd.limit
    return Outcome(Sessions(page, f"{page[-1].created_at}.{page[-1].session_id}" if more else None))


async def _end(session_id: str, ctx: Context[Deps], reason: str) -> Outcome[Empty]:
    if not await ctx.deps.sessions.end(ctx.user_id, session_id, ctx.at):
        raise NotFound("no such session")
    return Outcome(Empty(), pushes=kicked(ctx.user_id, [session_id], reason))


async def _end_stolen(state: SessionState, ctx: Context[Deps]) -> Outcome[Tokens]:
    log.warning(
        "refresh token of user %d used again: session ended",
        state.user_id,
        extra=about(ctx.traceparent),
    )
    await ctx.deps.sessions.end(state.user_id, state.session_id, ctx.at)
    pushes = kicked(state.user_id, [state.session_id], "token_reused")
    return Outcome(
        None,
        pushes=pushes,
        error=Unauthenticated("the refresh token was used before; log in again"),
    )


async def _pair(state: SessionState, new_token: str, ctx: Context[Deps]) -> Outcome[Tokens]:
    account = await ctx.deps.accounts.by_id(state.user_id)
    if account is None:
        raise Unauthenticated("this account is deleted")
    access_token = ctx.deps.signer.sign(state.user_id, state.session_id, ctx.at)
    return Outcome(Tokens(access_token, new_token, LIFETIME_S, account.me))


def _position(cursor: str) -> tuple[int, str]:
    created_at, _, session_id = cursor.partition(".")
    if not (created_at.isdecimal() and len(created_at) < 17 and is_token(session_id)):
        raise BadRequest("not a cursor of this list", field="cursor")
    return int(created_at), session_id
