"""`facts`: publishes what the timeline appended to `im.events` on `im.v1.evt.<domain>.<fact>`. Serves no commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.facts.relay import Relay
from shared import subjects
from shared.bus import Inbox
from shared.function import Function
from shared.hosts.log import reading
from shared.log import EVENTS
from shared.reader_progress import SqlProgress
from shared.resources import Resources

NAME = "facts"


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Relay]:
    """Runs the relay."""
    inbox = Inbox(resources.bus, subjects.FUNCTION_INBOX)
    relay = Relay(SqlProgress(resources.engine(), NAME), inbox, await resources.writer())
    try:
        async with reading(resources, EVENTS, NAME, relay):
            yield relay
    finally:
        inbox.close()


function = Function(NAME, (), lifespan)
