"""The log in memory, for tests: the same contract suite runs on it and on the real ones."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from shared.ids import now_ms
from shared.log import Owner, Record, partition_of


class MemoryLog:
    """`shared.log.LogWriter` within one process; `reader` reads it. Every reader owns all partitions."""

    def __init__(self, partitions: int, clock: Callable[[], int] = now_ms) -> None:
        self._partitions = partitions
        self._clock = clock
        self._records: dict[str, list[Record]] = {}
        self._readers: list[MemoryReader] = []

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """See `LogWriter.append`. Records in memory have no headers."""
        del trace
        self.put(topic, partition_of(key, self._partitions), value)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See `LogWriter.append_all`."""
        for key, value in records:
            await self.append(topic, key, value)

    def put(self, topic: str, partition: int, value: bytes) -> None:
        """Adds a record to one partition. Offsets have holes, as a stream of several partitions has."""
        records = self._records.setdefault(topic, [])
        records.append(Record(partition, len(records) + 1, self._clock(), value))
        for reader in self._readers:
            reader.wake_up()

    def records(self, topic: str) -> list[Record]:
        """All records of a topic, oldest first."""
        return self._records.setdefault(topic, [])

    def reader(self, topic: str, owner: Owner) -> "MemoryReader":
        """A `LogReader` of all partitions."""
        reader = MemoryReader(self.records(topic), frozenset(range(self._partitions)), owner)
        self._readers.append(reader)
        return reader


class MemoryReader:
    """`shared.log.LogReader` on a list."""

    def __init__(self, records: list[Record], partitions: frozenset[int], owner: Owner) -> None:
        self._records = records
        self._partitions = partitions
        self._owner = owner
        self._next: dict[int, int] = {}
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    async def read(self, most: int) -> list[Record]:
        """See `LogReader.read`."""
        if not self._next:
            self._next = dict(await self._owner.assigned(self._partitions))
        if not self._waiting() and not self._closed:
            self._wake = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(1.0, self.wake_up)
            await self._wake
            timer.cancel()
        if self._closed:
            return []
        records = self._waiting()[:most]
        self._next.update({r.partition: r.offset + 1 for r in records})
        return records

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.seek`."""
        self._next.update(offsets)

    @property
    def lag(self) -> int:
        """See `LogReader.lag`."""
        return len(self._waiting())

    async def stored(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.stored`."""

    async def close(self) -> None:
        """See `LogReader.close`."""
        if not self._closed:
            self._closed = True
            self.wake_up()
            await self._owner.revoked(frozenset(self._next))

    def wake_up(self) -> None:
        """Ends a waiting `read`."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _waiting(self) -> list[Record]:
        return [r for r in self._records if r.offset >= self._next[r.partition]]
