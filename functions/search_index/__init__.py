"""`search_index`: a reader of `im.events` that keeps the words of all messages, for `message.search`. No commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.search_index.indexer import Indexer
from functions.search_index.store import SqlTokens
from shared.function import Function
from shared.hosts.log import reading
from shared.log import EVENTS
from shared.reader_progress import SqlProgress
from shared.resources import Resources

NAME = "search_index"


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Indexer]:
    """Runs the indexer."""
    engine = resources.engine()
    indexer = Indexer(SqlProgress(engine, NAME), SqlTokens(engine))
    async with reading(resources, EVENTS, NAME, indexer):
        yield indexer


function = Function(NAME, (), lifespan)
