"""Producing to Kafka with aiokafka: one request for the batches of many partitions, written and read as one piece.

aiokafka keeps the connections, the metadata, the producer's id and the format of records. Its own batches are made for
many records each and cost 40 µs of Python a partition; ours mostly hold one or two, and that was a third of the CPU of
`send`. This leans on private names of aiokafka, whose version the locks pin; `tests/contract/test_log.py` checks on a
real broker that it works.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from io import BytesIO
from struct import Struct
from typing import Any, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import DuplicateSequenceNumber, KafkaError, NodeNotReadyError, for_code
from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from shared.ids import now_ms

log = logging.getLogger(__name__)

RETRY_S = 0.05
METADATA_S = 1.0
_MAGIC = 2
"""Version of the format of records."""
_ALL = -1
"""`acks`: all in-sync replicas."""
_FRONT = Struct(">hhiih")
"""Transaction (none), acks, time-out, number of topics; length of the topic's name."""
_NUMBER = Struct(">i")
_BATCH = Struct(">ii")
"""Partition, length of its records."""
_RESULT = Struct(">ihqqq")
"""Partition, error code, offset, time, start of the log."""
_THERE = (0, DuplicateSequenceNumber.errno)
"""Codes that say that a batch is in the log: now, or since an earlier try whose answer was lost."""

Settle = Callable[[Exception | None], None]
"""Hears once that a batch is committed, or why that is not known or not so."""


class Batch:
    """Records of one partition on their way.

    doubtful: an earlier try may have appended it. settle: set by whoever delivers it.
    """

    __slots__ = ("_builder", "_ms", "count", "doubtful", "settle", "tp", "wire")

    def __init__(self, tp: TopicPartition, builder: Any) -> None:
        self.tp = tp
        self.count = 0
        self.doubtful = False
        self.settle: Settle | None = None
        self.wire = b""
        self._builder = builder
        self._ms = now_ms()

    def add(self, key: bytes, value: bytes, trace: str) -> bool:
        """Adds a record; False: it is full."""
        headers = [("traceparent", trace.encode())] if trace else []
        if self._builder.append(self.count, self._ms, key, value, headers) is None:
            return False
        self.count += 1
        return True

    def close(self) -> None:
        """No more records."""
        self.wire = bytes(self._builder.build())

    def end(self, error: Exception | None = None) -> None:
        """Tells how it ended, once."""
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(error)


class Producer:
    """An idempotent producer. Of a partition, only one batch may be under way.

    A batch that may have been appended is repeated under its number until the broker says that it is there: so it
    neither doubles nor is overtaken. After one that was given up only another producer, with another id, may go on.
    """

    def __init__(self, inner: AIOKafkaProducer, timeout_ms: int) -> None:
        """`inner` has been started."""
        self._inner = inner
        self._client = inner.client
        self._timeout_ms = timeout_ms
        self._numbers: dict[TopicPartition, int] = {}
        """Of each partition's next record."""
        self._ended = False

    @classmethod
    async def open(cls, bootstrap: str, timeout_ms: int) -> Self:
        """Connects and gets an id. Raises: KafkaError, OSError."""
        inner = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=timeout_ms,
            retry_backoff_ms=int(RETRY_S * 1000),
        )
        try:
            await inner.start()
        except BaseException:
            await inner.stop()
            raise
        return cls(inner, timeout_ms)

    async def partitions(self, topic: str) -> int:
        """How many the topic has. Raises: KafkaError if there is no such topic."""
        return len(await self._inner.partitions_for(topic))

    def batch(self, topic: str, partition: int, most: int) -> Batch:
        """An empty one of at most so many bytes; the first record always fits."""
        tp = TopicPartition(topic, partition)
        identity = self._inner._txn_manager  # noqa: SLF001
        builder = DefaultRecordBatchBuilder(
            magic=_MAGIC,
            compression_type=0,
            is_transactional=0,
            producer_id=identity.producer_id,
            producer_epoch=identity.producer_epoch,
            base_sequence=self._numbers.get(tp, 0),
            batch_size=most,
        )
        return Batch(tp, builder)

    async def deliver(self, topic: str, batches: Sequence[Batch]) -> None:
        """Returns when all have ended, however long that takes."""
        left = list(batches)
        try:
            while left:
                if self._ended:
                    raise KafkaError("the producer was replaced")
                leaders: dict[int | None, list[Batch]] = {}
                for batch in left:
                    leader = self._client.cluster.leader_for_partition(batch.tp)
                    leaders.setdefault(leader, []).append(batch)
                again = await asyncio.gather(
                    *(self._try(node, topic, some) for node, some in leaders.items())
                )
                left = [batch for some in again for batch in some]
                if left:
                    await asyncio.sleep(RETRY_S)
                    # A client that is closed meanwhile answers never.
                    await asyncio.wait([self._client.force_metadata_update()], timeout=METADATA_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            for batch in batches:
                batch.end(error)

    async def _try(self, node: int | None, topic: str, batches: list[Batch]) -> list[Batch]:
        """Returns those that are to be tried again."""
        if node is None or node < 0:  # no leader is known right now
            return batches
        try:
            codes = await self._client.send(node, _Produce(topic, batches, self._timeout_ms))
        except KafkaError as error:
            log.warning("no answer of kafka: %s", str(error) or type(error).__name__)
            for batch in batches:
                batch.doubtful |= not isinstance(error, NodeNotReadyError)
                if not error.retriable:
                    batch.end(error)
            return batches if error.retriable else []
        again = []
        for batch in batches:
            code = codes.get(batch.tp.partition, -1)
            if code in _THERE:
                first = self._numbers.get(batch.tp, 0)
                self._numbers[batch.tp] = (first + batch.count) % 2**31
                batch.end()
                continue
            refusal = for_code(code)()
            log.warning("kafka refuses a batch for %s: %s", batch.tp, refusal)
            if refusal.retriable:
                batch.doubtful = True  # too few replicas, say: it may be there all the same
                again.append(batch)
            else:
                batch.end(refusal)
        return again

    async def close(self) -> None:
        """Gives up what is under way, and the connections."""
        self._ended = True
        # Its sender may end with whatever went wrong; the connections must not stay for that.
        for step in (self._inner.stop, self._client.close):
            try:
                async with asyncio.timeout(self._timeout_ms / 1000):
                    await step()
            except Exception as error:  # noqa: BLE001 - there is nothing more to be lost
                log.warning("closing a kafka producer: %s", str(error) or type(error).__name__)


class _Codes:
    """The answer: an error code for each partition. There is one topic."""

    @classmethod
    def decode(cls, data: BytesIO) -> dict[int, int]:
        """Raises: struct.error if it is no such answer."""
        raw = data.read()
        start = 6 + int.from_bytes(raw[4:6])  # behind the number of topics and the name
        (count,) = _NUMBER.unpack_from(raw, start)
        start += _NUMBER.size
        results = raw[start : start + count * _RESULT.size]
        return {partition: code for partition, code, *_ in _RESULT.iter_unpack(results)}


class _Body(ProduceRequest_v7):  # type: ignore[misc]
    """The request, encoded."""

    RESPONSE_TYPE = _Codes

    def __init__(self, wire: bytes) -> None:
        self._wire = wire

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self._wire)} bytes"

    def encode(self) -> bytes:
        """The wire bytes."""
        return self._wire


class _Produce(Request[ProduceRequest_v7]):  # type: ignore[misc]
    """One request for batches of one topic."""

    API_KEY = ProduceRequest_v7.API_KEY

    def __init__(self, topic: str, batches: Sequence[Batch], timeout_ms: int) -> None:
        self._topic = topic.encode()
        self._batches = batches
        self._timeout_ms = timeout_ms

    def build(self, _struct: type[ProduceRequest_v7]) -> _Body:
        """The request on the wire."""
        name, batches = self._topic, self._batches
        front = _FRONT.pack(-1, _ALL, self._timeout_ms, 1, len(name))
        parts = [front, name, _NUMBER.pack(len(batches))]
        for batch in batches:
            parts += (_BATCH.pack(batch.tp.partition, len(batch.wire)), batch.wire)
        return _Body(b"".join(parts))
