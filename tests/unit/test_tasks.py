"""Background tasks end, even if a library swallows a cancellation."""

import asyncio

import pytest

from shared import tasks


async def test_a_swallowed_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.0)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    async def done() -> None:
        return

    first, second = asyncio.create_task(stubborn()), asyncio.create_task(done())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await tasks.end(first, second)
    assert (first.cancelled(), second.done(), swallowed) == (True, True, 3)
