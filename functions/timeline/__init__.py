"""`timeline`: reads `im.requests`, numbers, stores, delivers and answers. Serves no commands of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.timeline.hot import RedisHot
from functions.timeline.shell import Timeline
from functions.timeline.store import SqlStore
from shared.adapters.log import open_log_reader
from shared.function import Function
from shared.hot import HotWriter
from shared.log import REQUESTS
from shared.resources import Resources

STOP_S = 10.0
"""Longest wait for the last COMMIT; what is not stored by then is applied again by the next owner."""


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Timeline]:
    """Runs the timeline in a task of its own; a crash of it ends the process."""
    timeline = Timeline(
        SqlStore(resources.engine(), resources.reader()),
        RedisHot(HotWriter(resources.redis())),
        resources.bus,
        await resources.writer(),
    )
    async with open_log_reader(
        resources.settings, resources.bus, REQUESTS, "timeline", timeline
    ) as reader:
        task = asyncio.create_task(timeline.run(reader), name="timeline")
        resources.watch(task)
        try:
            yield timeline
        finally:
            try:
                async with asyncio.timeout(STOP_S):
                    await timeline.stop()
                    await task
            finally:
                task.cancel()


function = Function("timeline", (), lifespan)
