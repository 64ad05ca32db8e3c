"""`auth`: accounts, passwords, sessions and their tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.auth.accounts import change_password, login, register
from functions.auth.deps import Deps
from functions.auth.sessions import check, list_sessions, logout, refresh, revoke_session
from functions.auth.store import SqlAccounts, SqlSessions
from functions.auth.tokens import TokenSigner
from shared.function import Function, on
from shared.passwords import Passwords
from shared.resources import Resources
from shared.throttle import Throttle


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens SQL, Redis and the threads that hash."""
    settings = resources.settings
    signer = TokenSigner.from_settings(settings)
    passwords = Passwords()
    try:
        yield Deps(
            SqlAccounts(resources.engine()),
            SqlSessions(resources.engine()),
            passwords,
            Throttle(resources.redis(), enabled=settings.rate_limits),
            signer,
            settings.registration_open,
        )
    finally:
        passwords.close()


function = Function(
    "auth",
    (
        on("auth.register", register),
        on("auth.login", login),
        on("auth.refresh", refresh),
        on("auth.logout", logout),
        on("auth.sessions", list_sessions),
        on("auth.revoke_session", revoke_session),
        on("auth.check", check),
        on("auth.change_password", change_password),
    ),
    lifespan,
)
