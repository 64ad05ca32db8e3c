"""Readers of the log `im.events`: owner of their partitions, with their place in SQL.

A reader is an `EventReader` with a `handle`, run by `reading_events` in the lifespan of its function.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from shared.adapters.log import open_log_reader
from shared.log import EVENTS, LogReader, Record
from shared.patience import Counts, patiently
from shared.reader_progress import Progress
from shared.resources import Resources

MAX_BATCH = 500
STOP_S = 10.0
"""Longest wait for what is under way; the next process does it again."""


class ReaderCounts(Counts, Protocol):
    """Where a reader is seen from outside; `lag` is the number of facts that are not read yet."""

    lag: int


class EventReader(ABC):
    """The owner of its partitions (`shared.log.Owner`). `run` works until `stop`."""

    def __init__(self, progress: Progress, counts: ReaderCounts) -> None:
        self._progress = progress
        self._counts = counts
        self._reader: LogReader | None = None
        self._owned: frozenset[int] = frozenset()
        self._stopping = False
        self._turn = asyncio.Lock()

    @abstractmethod
    async def handle(self, records: list[Record]) -> Mapping[int, int]:
        """Does what is to be done with facts, in order within each partition, at least once.

        Returns the offset behind the last one done, of each partition where that moved.
        """

    def owns(self, partition: int) -> bool:
        """Whether this process is still asked to read a partition."""
        return not self._stopping and partition in self._owned

    async def run(self, reader: LogReader) -> None:
        """Works until `stop`."""
        self._reader = reader
        while not self._stopping:
            records = await reader.read(MAX_BATCH)
            self._counts.lag = reader.lag
            async with self._turn:
                ends = await self.handle(records)
                if done := {p: end for p, end in ends.items() if p in self._owned}:
                    await patiently(lambda: self._progress.store(done), self._counts)
                    await reader.stored(done)

    async def stop(self) -> None:
        """Leaves the log; what is not done yet, the next owner does."""
        self._stopping = True
        async with (
            self._turn
        ):  # aiokafka would never end a commit of offsets under which it is closed
            if self._reader is not None:
                await self._reader.close()

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See `shared.log.Owner.assigned`."""
        starts = await patiently(lambda: self._progress.load(partitions), self._counts)
        self._owned |= partitions
        return starts

    async def revoked(self, partitions: frozenset[int]) -> None:
        """See `shared.log.Owner.revoked`. Waits for nothing: two owners for a moment only do the same twice."""
        self._owned -= partitions


R = TypeVar("R", bound=EventReader)


@asynccontextmanager
async def reading_events(resources: Resources, name: str, reader: R) -> AsyncIterator[R]:
    """Runs a reader in a task of its own; a crash of it ends the process. `name`: of its group of owners."""
    async with open_log_reader(resources.settings, resources.bus, EVENTS, name, reader) as source:
        task = asyncio.create_task(reader.run(source), name=name)
        resources.watch(task)
        try:
            yield reader
        finally:
            try:
                async with asyncio.timeout(STOP_S):
                    await reader.stop()
                    await task
            finally:
                task.cancel()
