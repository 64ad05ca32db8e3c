"""`profile`: who a user is, to himself and to others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.profile.deps import Deps
from functions.profile.handlers import delete, get, me, search, update
from functions.profile.store import SqlProfiles
from shared.function import Function, on
from shared.passwords import Passwords
from shared.presence import PresenceStore
from shared.resources import Resources
from shared.throttle import Throttle


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens SQL, Redis and the threads that check the password of a deletion."""
    passwords = Passwords()
    try:
        yield Deps(
            SqlProfiles(resources.engine(), resources.redis()),
            PresenceStore(resources.redis()),
            passwords,
            Throttle(resources.redis(), enabled=resources.settings.rate_limits),
        )
    finally:
        passwords.close()


function = Function(
    "profile",
    (
        on("user.me", me),
        on("user.update", update),
        on("user.get", get),
        on("user.search", search),
        on("user.delete", delete),
    ),
    lifespan,
)
