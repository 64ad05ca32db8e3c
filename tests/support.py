"""Small helpers of the tests."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Returns as soon as `condition()` is true; fails the test if it is not within `timeout_s`.

    For states of another process that tell nobody when they change; where there is an event, wait for that.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
