"""`friend_apply`: how two users become friends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.friend_apply.handlers import Deps, accept, apply, list_applications, reject
from functions.friend_apply.store import SqlApplications
from shared.function import Function, on
from shared.gate import Gate
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens SQL, and the gate for the limit and the copies of rights that a new friendship removes."""
    gate = Gate.of(resources)
    yield Deps(SqlApplications(resources.engine()), gate)


function = Function(
    "friend_apply",
    (
        on("friend.apply", apply),
        on("friend.applications", list_applications),
        on("friend.accept", accept),
        on("friend.reject", reject),
    ),
    lifespan,
)
