"""The HTTP server of a function process: what the behaviour suite of the hosts does not see."""

import asyncio
import socket

import pytest

from shared.hosts.web import Web


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_comes_while_it_ends_does_not_hold_it(turns: int) -> None:
    """At some turn of the loop it is accepted and not yet known to be closed."""
    with socket.socket() as late:
        async with asyncio.timeout(30), Web(0) as web:
            late.connect(("127.0.0.1", web.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            await web.drain(5)
