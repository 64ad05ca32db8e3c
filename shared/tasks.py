"""Ending tasks that run in the background."""

import asyncio

AGAIN_S = 0.5


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Cancels tasks and returns when they have ended.

    Again and again: until Python 3.12 `wait_for` and its like in Redis' client can swallow a cancellation, and a loop
    that goes on would be waited for for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
