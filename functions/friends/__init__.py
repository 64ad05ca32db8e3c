"""`friends`: the list of friends and of those one has blocked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.friends.handlers import (
    Deps,
    block,
    delete,
    list_blocked,
    list_friends,
    remark,
    unblock,
)
from functions.friends.store import SqlFriends
from shared.function import Function, on
from shared.gate import Copies
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens SQL, and Redis for the copies of rights that a change removes."""
    yield Deps(SqlFriends(resources.engine()), Copies(resources.redis()))


function = Function(
    "friends",
    (
        on("friend.list", list_friends),
        on("friend.blocked", list_blocked),
        on("friend.remark", remark),
        on("friend.delete", delete),
        on("friend.block", block),
        on("friend.unblock", unblock),
    ),
    lifespan,
)
