"""`send`: checks a message and appends it to the log. The timeline gives it its place and answers the sender."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.send.handler import Deps, send
from functions.send.sources import SqlSources
from shared.function import Function, on
from shared.gate import Gate
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens the rights, limits and messages that a send is checked against."""
    yield Deps(Gate.of(resources), SqlSources(resources.engine()))


function = Function("send", (on("message.send", send),), lifespan)
