"""The log on Kafka (aiokafka): idempotent, acks=all, LogAppendTime, one consumer group per reader.

What aiokafka leaves to us: an idempotent send never expires, so dead lines are ours; and a producer whose sequence
numbers got out of step stays so, and is replaced.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from shared.errors import UnknownOutcome
from shared.log import LogError, NotAppendedError, partition_of

log = logging.getLogger(__name__)

APPEND_TIMEOUT_S = 5.0
PACE_S = 0.005
"""Batches leave at most this often, those of all partitions together: what few records share costs the broker, the
reader and everybody behind them once. The first after a pause leaves at once.
"""
MAX_BATCH = 512 << 10
MAX_RECORD = MAX_BATCH // 2
_SURELY_NOT = (MessageSizeTooLargeError, TopicAuthorizationFailedError)


def bootstrap_of(url: str) -> str:
    """`host:port[,host:port]` of `kafka://host:port[,…]`."""
    return url.removeprefix("kafka://").rstrip("/")


@dataclass(slots=True)
class _Append:
    key: bytes
    value: bytes
    done: "asyncio.Future[None]"
    last: bool = True
    """Whether `done` is resolved with this one. If it has failed before, this one is not sent any more."""
    trace: str = ""


@dataclass(slots=True)
class _Lane:
    """One partition's queue. One batch is under way at a time, so that records keep their order."""

    topic: str
    partition: int
    waiting: deque[_Append] = field(default_factory=deque)
    task: "asyncio.Task[None] | None" = None


class KafkaLogWriter:
    """`shared.log.LogWriter`: what gathers while a partition's batch is under way travels in the next one.

    Connects on first use, so that Kafka away at the start is an `unavailable`, not a crash.
    """

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._left = 0.0
        self._leaving: asyncio.Future[None] | None = None

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """See `LogWriter.append`."""
        done = asyncio.get_running_loop().create_future()
        entry = _Append(key.encode(), value, done, trace=trace)
        if len(value) > MAX_RECORD:
            _fail(
                entry, NotAppendedError(f"a record of {len(value)} bytes is too large for the log")
            )
        else:
            self._enqueue(topic, partition_of(key, self._partitions), entry)
        return entry.done

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See `LogWriter.append_all`. One future a partition: a batch that fails takes those behind it along."""
        loop = asyncio.get_running_loop()
        lanes: dict[int, list[_Append]] = {}
        for key, value in records:
            if len(value) > MAX_RECORD:
                raise NotAppendedError(f"a record of {len(value)} bytes is too large for the log")
            lane = lanes.setdefault(partition_of(key, self._partitions), [])
            done = lane[0].done if lane else loop.create_future()
            lane.append(_Append(key.encode(), value, done, last=False))
        for partition, entries in lanes.items():
            entries[-1].last = True
            for entry in entries:
                self._enqueue(topic, partition, entry)
        waiting = [entries[0].done for entries in lanes.values()]
        if waiting:
            await asyncio.wait(waiting)
        for error in [future.exception() for future in waiting]:
            if error is not None:
                raise error

    def _enqueue(self, topic: str, partition: int, entry: _Append) -> None:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(topic, partition)
        lane.waiting.append(entry)
        if lane.task is None:
            # The task starts in the next turn of the loop and so takes along all that this turn appends.
            lane.task = asyncio.get_running_loop().create_task(self._drive(lane))

    async def _drive(self, lane: _Lane) -> None:
        """Sends batch after batch until the lane is empty."""
        try:
            while lane.waiting:
                await self._departure()
                await self._send(lane)
        finally:
            lane.task = None
            while lane.waiting:
                _fail(lane.waiting.popleft(), NotAppendedError("the log writer is closed"))

    def _departure(self) -> "asyncio.Future[None]":
        """Resolves when batches may leave, for all lanes that wait at once."""
        if self._leaving is None:
            loop = asyncio.get_running_loop()
            self._leaving = loop.create_future()
            loop.call_at(max(loop.time(), self._left + PACE_S), self._leave, self._leaving)
        return self._leaving

    def _leave(self, leaving: "asyncio.Future[None]") -> None:
        self._left = asyncio.get_running_loop().time()
        self._leaving = None
        if not leaving.done():
            leaving.set_result(None)

    async def _send(self, lane: _Lane) -> None:
        now = asyncio.get_running_loop().time()
        entries: list[_Append] = []
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                producer = await self._open()
                found = len(await producer.partitions_for(lane.topic))
                if found != self._partitions:
                    raise LogError(f"{lane.topic} has {found} partitions, not {self._partitions}")
                batch, entries = self._pack(producer, lane)
                if not entries:
                    return
                delivery = await producer.send_batch(batch, lane.topic, partition=lane.partition)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            # Nothing was handed over yet: every record that waits is surely not in the log.
            reason = NotAppendedError(f"kafka is not reached: {str(error) or type(error).__name__}")
            for entry in (*entries, *lane.waiting):
                _fail(entry, reason)
            lane.waiting.clear()
            return
        await self._settle(lane, delivery, entries, now + APPEND_TIMEOUT_S)

    def _pack(self, producer: AIOKafkaProducer, lane: _Lane) -> tuple[Any, list[_Append]]:
        """Moves as many waiting records as fit into a batch."""
        batch = producer.create_batch()
        entries: list[_Append] = []
        while lane.waiting:
            entry = lane.waiting[0]
            if entry.done.done() and not entry.done.cancelled():
                lane.waiting.popleft()
                continue
            kept = batch.append(
                key=entry.key,
                value=entry.value,
                timestamp=None,
                headers=[("traceparent", entry.trace.encode())] if entry.trace else [],
            )
            if kept is None:
                break
            entries.append(lane.waiting.popleft())
        batch.close()
        return batch, entries

    async def _settle(
        self, lane: _Lane, delivery: "asyncio.Future[Any]", entries: list[_Append], deadline: float
    ) -> None:
        """Waits for one batch. After the dead line nobody can know; until it settles the partition is stuck."""
        while True:
            timeout = max(0.05, deadline - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait({delivery}, timeout=timeout)
            if done:
                break
            for entry in entries:
                _fail(entry, UnknownOutcome("the log did not answer in time"))
            while lane.waiting:
                _fail(lane.waiting.popleft(), NotAppendedError("kafka does not answer"))
        error = delivery.exception()
        if error is None:
            for entry in entries:
                if entry.last and not entry.done.done():
                    entry.done.set_result(None)
            return
        log.warning(
            "a batch of %d records for %s was not confirmed: %s", len(entries), lane.topic, error
        )
        surely_not = isinstance(error, _SURELY_NOT)
        for entry in entries:
            _fail(
                entry,
                NotAppendedError(str(error)) if surely_not else UnknownOutcome("the log failed"),
            )
        if not surely_not:
            await self._replace(error)

    async def _open(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    acks="all",
                    enable_idempotence=True,
                    max_batch_size=MAX_BATCH,
                    max_request_size=2 * MAX_BATCH,
                    request_timeout_ms=int(APPEND_TIMEOUT_S * 1000),
                    retry_backoff_ms=50,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer

    async def _replace(self, error: BaseException) -> None:
        """A new producer gets a new id and counts from zero: the old one may be out of step for ever."""
        producer, self._producer = self._producer, None
        if producer is not None:
            log.warning("the producer is replaced after: %s", error)
            # Its other batches fail with it, so that their lanes need not wait for an answer that never comes.
            producer._message_accumulator.fail_all(KafkaError("the producer was replaced"))  # noqa: SLF001
            await _stop_quietly(producer)

    async def close(self) -> None:
        """Waits for what is under way, a while."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=APPEND_TIMEOUT_S)
            for task in tasks:
                task.cancel()
        if self._producer is not None:
            await _stop_quietly(self._producer)


async def ensure_topics(bootstrap: str, topics: Mapping[str, int]) -> None:
    """Creates topics with their number of partitions, and checks that existing ones have just that many.

    Times are the broker's (`LogAppendTime`): the log decides the order of messages. Replication is the broker's
    default. Raises: LogError if a topic cannot be created or has another number of partitions.
    """
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(7 * 86_400_000)}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        new = [
            NewTopic(topic, partitions, -1, replica_assignments={}, topic_configs=config)
            for topic, partitions in topics.items()
        ]
        for topic, code, *reason in (await admin.create_topics(new)).topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise LogError(f"topic {topic} cannot be created: {reason or code}")
        for description in await admin.describe_topics(list(topics)):
            name, found = description["topic"], len(description["partitions"])
            if found and found != topics[name]:
                raise LogError(
                    f"topic {name} has {found} partitions, not {topics[name]}: their number must never change"
                )
    finally:
        await admin.close()


def _fail(entry: _Append, error: Exception) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)


async def _stop_quietly(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(APPEND_TIMEOUT_S):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("the producer did not stop cleanly: %s", error)
