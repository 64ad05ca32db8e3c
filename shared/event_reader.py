"""Readers of the log `im.events`: owner of their partitions, with their place in SQL.

A reader is an `EventReader` with a `handle`, run by `shared.hosts.log.reading` in the lifespan of its function.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping

from shared.log import LogReader, Record
from shared.patience import Counts, patiently
from shared.reader_progress import Progress

MAX_BATCH = 500


class EventReader(ABC):
    """The owner of its partitions (`shared.log.Owner`). `run` works until `stop`."""

    def __init__(self, progress: Progress, counts: Counts) -> None:
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
