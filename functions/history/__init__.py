"""`history`: pages of a conversation, and what a device has missed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.history.cache import HotCache
from functions.history.handler import Deps, history, sync
from functions.history.pages import Pages
from functions.history.store import SqlArchive
from shared.function import Function, on
from shared.resources import Resources


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens the hot cache and the archive behind it."""
    archive = SqlArchive(resources.engine())
    yield Deps(Pages(HotCache(resources.redis()), archive), archive)


function = Function("history", (on("message.history", history), on("message.sync", sync)), lifespan)
