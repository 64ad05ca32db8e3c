"""Runs the owner of a topic's partitions in the lifespan of its function: the host of what is not asked, but reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from shared.adapters.log import open_log_reader
from shared.log import LogReader, Owner
from shared.resources import Resources

STOP_S = 10.0
"""Longest wait for what is under way; what is not stored by then, the next owner does again."""


class Runner(Owner, Protocol):
    """An owner that works until it is stopped."""

    async def run(self, reader: LogReader) -> None:
        """Works until `stop`."""

    async def stop(self) -> None:
        """Ends what is under way and leaves the log; `run` returns then."""


@asynccontextmanager
async def reading(
    resources: Resources, topic: str, name: str, runner: Runner
) -> AsyncIterator[None]:
    """Runs it in a task of its own; a crash of it ends the process. `name`: of its group of owners."""
    async with open_log_reader(resources.settings, resources.bus, topic, name, runner) as reader:
        task = asyncio.create_task(runner.run(reader), name=name)
        resources.watch(task)
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(STOP_S):
                    await runner.stop()
                    await task
            finally:
                task.cancel()
