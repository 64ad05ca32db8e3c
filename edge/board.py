"""A board in shared memory on which every worker of a host writes its numbers, so that any of them can report them all.

Made before the workers are forked; each writes its own slot only and reads the others'. A slot's version is odd while
it is being written, so a reader never takes half a record for a whole one.
"""

import mmap
import struct
import time

import msgspec

from edge.stats import Stats
from schemas.types import Model

SLOT = 256 * 1024
STALE_S = 5.0
"""A worker that has not written for so long does not work."""

_head = struct.Struct("=QQ")


class Record(Model):
    """What a worker posts. at: monotonic seconds, the same clock for all processes of a host."""

    at: float
    stats: Stats


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Board:
    """`workers` slots."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, SLOT * workers)

    def post(self, worker: int, stats: Stats) -> None:
        """Writes a worker's own slot."""
        body = _encode(Record(time.monotonic(), stats))
        start = SLOT * worker
        version = _head.unpack_from(self._memory, start)[0] & ~1
        _head.pack_into(self._memory, start, version + 1, len(body))
        self._memory[start + _head.size : start + _head.size + len(body)] = body
        _head.pack_into(self._memory, start, version + 2, len(body))

    def read(self, worker: int) -> Record | None:
        """A worker's last record, or None if it has not written yet."""
        start = SLOT * worker
        for _ in range(1000):
            version, size = _head.unpack_from(self._memory, start)
            body = self._memory[start + _head.size : start + _head.size + size]
            if version % 2 == 0 and _head.unpack_from(self._memory, start)[0] == version:
                return _decode(body) if version else None
        # Its writer died in the midst of writing.
        return None

    def total(self) -> Stats:
        """All workers' numbers together."""
        total = Stats()
        for worker in range(self.workers):
            if record := self.read(worker):
                total.add(record.stats)
        return total

    def all_ready(self) -> bool:
        """Whether every worker says that it is ready, and said so lately."""
        now = time.monotonic()
        records = [self.read(worker) for worker in range(self.workers)]
        return all(r is not None and r.stats.ready and now - r.at < STALE_S for r in records)

    def inherit(self, worker: int) -> Stats:
        """What a new worker starts from: its predecessor's counts go on, its connections are gone."""
        record = self.read(worker)
        stats = record.stats if record else Stats()
        stats.ready, stats.connections, stats.in_flight = False, 0, 0
        return stats
