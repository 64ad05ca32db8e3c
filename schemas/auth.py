"""Accounts and sessions: requests and replies of the `auth` function."""

from typing import Annotated

from msgspec import Meta

from schemas.types import (
    Cursor,
    Limit,
    Milliseconds,
    Model,
    Next,
    Nickname,
    Password,
    Platform,
    Token,
    Username,
)
from schemas.users import Me


class Register(Model):
    """Creates an account.

    `conflict` if the name is taken; `forbidden` if registration is closed.
    """

    username: Username
    password: Password
    nickname: Nickname | None = None


class Login(Model):
    """Opens a session on one device.

    An unknown user and a wrong password get the same answer in the same time.
    """

    username: Username
    password: Annotated[str, Meta(min_length=1, max_length=128)]
    device_id: Annotated[Token, Meta(description="The device's own lasting id.")] | None = None
    platform: Platform = "other"


class Tokens(Model):
    """What a log-in gives.

    `access_token` is for `Authorization: Bearer` and `/ws`; `refresh_token`, good for one use, gets
    the next pair.
    """

    access_token: Annotated[str, Meta(description="A JWT.")]
    refresh_token: Annotated[str, Meta(description="Opaque; keep it secret.")]
    expires_in: Annotated[int, Meta(description="Seconds until the access token expires.")]
    user: Me


class Refresh(Model):
    """Trades a refresh token for a new pair.

    A token used twice ends the whole session (it was stolen or copied).
    Only if the answer was lost may it be repeated: within 30 s and before its successor was used.
    """

    refresh_token: Annotated[str, Meta(min_length=1, max_length=256)]


class Logout(Model):
    """Ends the session of the access token, or the named one of one's own."""

    session_id: (
        Annotated[Token, Meta(description="Without it: the session of the access token.")] | None
    ) = None


class ChangePassword(Model):
    """Sets a new password and ends all other sessions."""

    old_password: Annotated[str, Meta(min_length=1, max_length=128)]
    new_password: Password


class Session(Model):
    """One logged-in device."""

    session_id: str
    created_at: Milliseconds
    last_used_at: Milliseconds
    platform: Platform
    device_id: str | None = None
    current: Annotated[bool, Meta(description="It is the session of the access token.")] = False


class Sessions(Model):
    """A page of one's own sessions, newest first."""

    sessions: list[Session]
    next: Next | None


class ListSessions(Model):
    """Lists one's own live sessions."""

    cursor: Cursor | None = None
    limit: Limit = 50


class RevokeSession(Model):
    """Ends one of one's own sessions.

    Its refresh token dies and its sockets are closed with 4409.
    """

    id: Annotated[Token, Meta(description="`session_id` of the session.")]
