"""What the handlers of `auth` need, as narrow Protocols. `store` implements them on SQL."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from functions.auth.refresh import SessionState
from functions.auth.tokens import TokenSigner
from schemas.auth import Session
from schemas.internal import SessionOf
from schemas.types import Platform
from schemas.users import Me
from shared.passwords import Passwords
from shared.throttle import Throttle


class Account(msgspec.Struct, frozen=True):
    """A live account with its password's hash."""

    me: Me
    password_hash: str


class NewAccount(msgspec.Struct, frozen=True):
    """An account to be created; the keys are the folded names."""

    username: str
    username_key: str
    nickname: str
    nickname_key: str
    password_hash: str
    created_ms: int


class NewSession(msgspec.Struct, frozen=True):
    """A session to be opened with its first refresh token."""

    session_id: str
    user_id: int
    device_id: str | None
    platform: Platform
    refresh_hash: bytes
    created_ms: int
    expires_ms: int


class Accounts(Protocol):
    """Accounts by name and id. All raise Unavailable; what writes, UnknownOutcome too."""

    async def name_taken(self, username_key: str) -> bool:
        """Whether a live account has this name."""

    async def create(self, account: NewAccount) -> int:
        """The new user's id. Raises: Conflict if the name is taken."""

    async def by_name(self, username_key: str) -> Account | None:
        """A live account."""

    async def by_id(self, user_id: int) -> Account | None:
        """A live account."""

    async def change_password(
        self, user_id: int, old_hash: str, new_hash: str, keep_session: str, now_ms: int
    ) -> list[str] | None:
        """Ends all sessions but one and returns them.

        None, changing nothing, if the stored hash is not the old one (any more).
        """


class Sessions(Protocol):
    """Sessions and their refresh tokens. All raise Unavailable; what writes, UnknownOutcome too."""

    async def open(self, session: NewSession, password_hash: str) -> list[str] | None:
        """Ends older sessions of the same device and returns them.

        None, opening nothing, if the account's hash is not this one (any more).
        """

    async def load(self, session_id: str) -> SessionState | None:
        """The state of its tokens."""

    async def rotate(self, old: SessionState, new: SessionState, now_ms: int) -> bool:
        """Stores the new state if the old one is still there."""

    async def end(self, user_id: int, session_id: str, now_ms: int) -> bool:
        """Ends a live session of this user; False if there is none."""

    async def ended(self, sessions: Sequence[SessionOf]) -> list[SessionOf]:
        """Those of these users that have ended before their time."""

    async def live(
        self, user_id: int, now_ms: int, before: tuple[int, str] | None, limit: int
    ) -> Sequence[Session]:
        """Newest first, those before (created_at, session_id)."""


class Deps(msgspec.Struct, frozen=True):
    """What `auth` needs."""

    accounts: Accounts
    sessions: Sessions
    passwords: Passwords
    throttle: Throttle
    signer: TokenSigner
    registration_open: bool = True
