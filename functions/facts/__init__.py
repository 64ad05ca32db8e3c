"""`facts`: publishes what the timeline appended to `im.events` on `im.v1.evt.<domain>.<fact>`. Serves no commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.facts.progress import SqlProgress
from functions.facts.relay import Relay
from shared import subjects
from shared.adapters.log import open_log_reader
from shared.bus import Inbox
from shared.function import Function
from shared.log import EVENTS
from shared.resources import Resources

NAME = "facts"
STOP_S = 10.0
"""Longest wait for what is under way; the next process publishes it again."""


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Relay]:
    """Runs the relay in a task of its own; a crash of it ends the process."""
    inbox = Inbox(resources.bus, subjects.FUNCTION_INBOX)
    relay = Relay(SqlProgress(resources.engine(), NAME), inbox, await resources.writer())
    try:
        async with open_log_reader(
            resources.settings, resources.bus, EVENTS, NAME, relay
        ) as reader:
            task = asyncio.create_task(relay.run(reader), name=NAME)
            resources.watch(task)
            try:
                yield relay
            finally:
                try:
                    async with asyncio.timeout(STOP_S):
                        await relay.stop()
                        await task
                finally:
                    task.cancel()
    finally:
        inbox.close()


function = Function(NAME, (), lifespan)
