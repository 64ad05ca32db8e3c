"""How many pages came out of the hot cache, by the numbers of `history` itself."""

from typing import NamedTuple

import msgspec
import nats

from tests.bench.stack import Stack


class Pages(NamedTuple):
    """Pages so far, and those of them that were in the cache."""

    hits: int
    total: int


class _Data(msgspec.Struct):
    cache_hits: int
    cache_misses: int


class _Endpoint(msgspec.Struct):
    data: _Data | None = None


class _Stats(msgspec.Struct):
    endpoints: list[_Endpoint]


async def pages(stack: Stack) -> Pages:
    """Asks `history`."""
    client = await nats.connect(stack.nats_url)
    try:
        answer = await client.request("$SRV.STATS.history", timeout=10)
    finally:
        await client.close()
    endpoints = msgspec.json.decode(answer.data, type=_Stats).endpoints
    (data,) = (endpoint.data for endpoint in endpoints if endpoint.data is not None)
    return Pages(data.cache_hits, data.cache_hits + data.cache_misses)


def hit_rate(before: Pages, after: Pages) -> float | None:
    """The share of a part's pages; None if none were read."""
    total = after.total - before.total
    return (after.hits - before.hits) / total if total else None
