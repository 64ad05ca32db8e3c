"""`search_index`: a reader of `im.events` that keeps the words of all messages, for `message.search`. No commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.search_index.indexer import Indexer
from functions.search_index.store import SqlTokens
from shared.event_reader import reading_events
from shared.function import Function
from shared.reader_progress import SqlProgress
from shared.resources import Resources

NAME = "search_index"


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Indexer]:
    """Runs the indexer."""
    engine = resources.engine()
    async with reading_events(
        resources, NAME, Indexer(SqlProgress(engine, NAME), SqlTokens(engine))
    ) as indexer:
        yield indexer


function = Function(NAME, (), lifespan)
