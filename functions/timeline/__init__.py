"""`timeline`: reads `im.requests`, numbers, stores, delivers and answers. Serves no commands of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.timeline.hot import RedisHot
from functions.timeline.shell import Timeline
from functions.timeline.store import SqlStore
from shared.function import Function
from shared.hosts.log import reading
from shared.hot import HotWriter
from shared.log import REQUESTS
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Timeline]:
    """Runs the timeline in a task of its own; a crash of it ends the process."""
    timeline = Timeline(
        SqlStore(resources.engine(), resources.reader()),
        RedisHot(HotWriter(resources.redis())),
        resources.bus,
        await resources.writer(),
    )
    async with reading(resources, REQUESTS, "timeline", timeline):
        yield timeline


function = Function("timeline", (), lifespan)
