"""`history`: pages of a conversation, what a device has missed, conversations, and the search."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.history import listing, receipts, reporting, searching
from functions.history.book import SqlBook
from functions.history.cache import HotCache
from functions.history.changes import SqlChanges
from functions.history.handler import Deps, history, sync
from functions.history.index import SqlIndex
from functions.history.pages import Pages
from functions.history.reporting import SqlReports
from functions.history.shelf import SqlShelf
from functions.history.store import SqlArchive
from functions.history.tail import Tails
from shared.function import Function, on
from shared.lookup import Messages
from shared.resources import Resources


class All(Deps, frozen=True):
    """What all handlers of the function need."""

    listing: listing.Deps
    receipts: receipts.Deps
    searching: searching.Deps
    reporting: reporting.Deps
    rates: Pages


def hits(deps: All) -> dict[str, object]:
    """How many pages came out of the hot cache, for `$SRV.STATS`."""
    return {"cache_hits": deps.rates.hits, "cache_misses": deps.rates.misses}


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[All]:
    """Opens the hot cache and the archive behind it."""
    engine = resources.engine()
    archive = SqlArchive(engine, resources.reader())
    pages = Pages(HotCache(resources.redis()), archive)
    unstored = Tails(resources.redis())
    yield All(
        pages,
        archive,
        SqlChanges(engine, archive),
        unstored,
        listing.Deps(SqlShelf(engine), unstored),
        receipts.Deps(Messages(engine), archive, SqlBook(engine)),
        searching.Deps(SqlIndex(engine)),
        reporting.Deps(SqlReports(engine)),
        pages,
    )


function = Function(
    "history",
    (
        on("message.history", history, hits),
        on("message.sync", sync),
        on("message.search", searching.search),
        on("message.report", reporting.report),
        on("message.receipts", receipts.receipts),
        on("message.edits", receipts.edits),
        on("conversation.list", listing.list_conversations),
        on("conversation.update", listing.update),
        on("conversation.clear", listing.clear),
        on("conversation.pins", receipts.pins),
    ),
    lifespan,
)
