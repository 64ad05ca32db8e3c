"""What is said in a fetch session of Kafka (requests and answers of version 7), and the records in it.

aiokafka walks through a schema for each field and makes several objects of each record. Here the same costs a third;
`tests/unit/test_kafka_wire.py` holds it against aiokafka's own.
"""

from collections.abc import Iterator
from itertools import islice
from struct import Struct
from typing import NamedTuple

from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest_v7
from aiokafka.record.memory_records import MemoryRecords

from shared.log import Record

_INT = Struct(">i")
_SHORT = Struct(">h")
_REQUEST = Struct(">iiiibiii")
"""Replica, longest wait, least and most bytes, isolation level, session, its epoch; number of topics."""
_ASKED = Struct(">iqqi")
"""Partition, offset, start of the log (said by replicas only), most bytes."""
_ANSWER = Struct(">ihii")
"""Throttled for, error, session; number of topics."""
_ANSWERED = Struct(">ihqqqii")
"""Partition, error, high water mark, last stable offset, start of the log, aborted transactions; size of records."""


class FetchRequest(FetchRequest_v7):  # type: ignore[misc]
    """A request of a session, which forgets no topics."""

    def encode(self) -> bytes:
        """Its bytes."""
        out = [
            _REQUEST.pack(
                self.replica_id,
                self.max_wait_time,
                self.min_bytes,
                self.max_bytes,
                self.isolation_level,
                self.session_id,
                self.session_epoch,
                len(self.topics),
            )
        ]
        for topic, partitions in self.topics:
            name = topic.encode()
            out += (_SHORT.pack(len(name)), name, _INT.pack(len(partitions)))
            out += [_ASKED.pack(*partition) for partition in partitions]
        out.append(_INT.pack(0))
        return b"".join(out)


Answered = tuple[str, int, int, int, MemoryRecords]
"""What an answer says of one partition: its topic and number, high water mark, last stable offset, records."""


class Answer(NamedTuple):
    """One without errors."""

    session: int
    partitions: list[Answered]


def decode_answer(data: bytes, at: int) -> Answer | None:
    """The answer that begins at `at`; None if there is anything in it that is out of the ordinary."""
    _, error, session, topics = _ANSWER.unpack_from(data, at)
    at += _ANSWER.size
    if error:
        return None
    partitions = []
    for _ in range(topics):
        (size,) = _SHORT.unpack_from(data, at)
        at += _SHORT.size
        topic = data[at : at + size].decode()
        at += size
        (count,) = _INT.unpack_from(data, at)
        at += _INT.size
        for _ in range(count):
            partition, error, highwater, stable, _, aborted, size = _ANSWERED.unpack_from(data, at)
            at += _ANSWERED.size
            batches = MemoryRecords(data[at : at + size])
            if error or aborted > 0 or size < 0 or (size and not batches.has_next()):
                return None
            at += size
            partitions.append((topic, partition, highwater, stable, batches))
    return Answer(session, partitions)


class Fetched:
    """The records of one partition in an answer, from an offset on; each is unpacked when it is its turn."""

    __slots__ = ("_records", "offset")

    def __init__(self, partition: int, offset: int, batches: MemoryRecords) -> None:
        self.offset = offset
        """Where to go on when what was taken is done."""
        self._records = self._unpack(partition, batches)

    def take(self, most: int) -> list[Record]:
        """The next ones; fewer than `most` when there are no more."""
        return list(islice(self._records, most))

    def _unpack(self, partition: int, batches: MemoryRecords) -> Iterator[Record]:
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC in partition {partition}")
            if not batch.is_control_batch:
                for record in batch:
                    # The broker sends whole batches, which may begin before the offset that was asked for.
                    if record.offset >= self.offset:
                        self.offset = record.offset + 1
                        yield Record(partition, record.offset, record.timestamp, record.value)
            # The last records of a batch may be gone (compaction), and a control batch yields none.
            self.offset = batch.next_offset

    def calculate_backoff(self) -> float:
        """Asked by aiokafka before a request of its own: that waits for this to be read, and asks again after 0.1 s."""
        return 0.1
