"""`presence`: who of one's friends is on-line, and who is typing. Nothing of it reaches the log or SQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.presence.handlers import Deps, report, subscribe
from functions.presence.platforms import SqlPlatforms
from functions.presence.sweeper import sweep_for_ever
from functions.presence.typing_sign import send_typing
from functions.presence.watchers import Watchers
from shared.function import Function, on
from shared.gate import Gate
from shared.presence import PresenceStore
from shared.resources import Resources
from shared.tasks import end


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens Redis and SQL, and looks after edges that died without a word."""
    gate, store = Gate.of(resources), PresenceStore(resources.redis())
    watchers = Watchers(store, gate)
    sweeper = asyncio.create_task(sweep_for_ever(store, watchers, resources.bus))
    resources.watch(sweeper)
    try:
        yield Deps(gate, store, SqlPlatforms(resources.engine()), watchers)
    finally:
        await end(sweeper)


function = Function(
    "presence",
    (
        on("presence.subscribe", subscribe),
        on("presence.report", report),
        on("typing.send", send_typing),
    ),
    lifespan,
)
