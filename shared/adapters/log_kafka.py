"""The log on Kafka (aiokafka): idempotent, acks=all, LogAppendTime, one consumer group per reader.

What aiokafka leaves to us: an idempotent send never expires, so dead lines are ours; and a producer whose sequence
numbers got out of step stays so, and is replaced.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    MessageSizeTooLargeError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from shared.adapters.kafka_produce import Batch, Producer
from shared.errors import UnknownOutcome
from shared.log import LogError, NotAppendedError, partition_of
from shared.tasks import end

log = logging.getLogger(__name__)

APPEND_TIMEOUT_S = 5.0
PAUSE_EACH_S = 0.0003
PAUSE_FREE = 12
PAUSE_MOST_S = 0.012
"""Batches of all partitions leave together, and the next ones after a pause that grows with the records of the last
beyond PAUSE_FREE: what few records share costs the broker, the reader and everybody behind them once. The first after
it leaves at once.
"""
SWEEP_S = 0.25
"""Between two looks for batches whose dead line has passed."""
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


@dataclass(slots=True, eq=False)
class _Lane:
    """One partition's queue. One batch is under way at a time, so that records keep their order."""

    topic: str
    partition: int
    waiting: deque[_Append] = field(default_factory=deque)
    busy: bool = False
    """Whether a batch is under way, or about to be."""
    sending: list[_Append] = field(default_factory=list)
    """The batch that is packed for the producer."""
    deadline: float = 0.0
    """Of that batch, in time of the loop."""


class KafkaLogWriter:
    """`shared.log.LogWriter`: what gathers while a partition's batch is under way travels in the next one.

    Connects on first use, so that Kafka away at the start is an `unavailable`, not a crash.
    """

    def __init__(self, bootstrap: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._producer: Producer | None = None
        self._opening = asyncio.Lock()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._ready: dict[_Lane, None] = {}
        """Those with records that are not busy."""
        self._flying: dict[_Lane, None] = {}
        """Those whose batch the producer has."""
        self._next = 0.0
        """When batches may leave, in time of the loop."""
        self._departure: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """See `LogWriter.append`."""
        done = asyncio.get_running_loop().create_future()
        entry = _Append(key.encode(), value, done, trace=trace)
        if len(value) > MAX_RECORD:
            _fail(entry, _too_large(value))
        else:
            self._enqueue(topic, partition_of(key, self._partitions), entry)
        return entry.done

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See `LogWriter.append_all`. One future a partition: a batch that fails takes those behind it along."""
        loop = asyncio.get_running_loop()
        lanes: dict[int, list[_Append]] = {}
        for key, value in records:
            if len(value) > MAX_RECORD:
                raise _too_large(value)
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
        if not lane.busy:
            self._ready[lane] = None
            self._schedule()

    def _schedule(self) -> None:
        if self._departure is None:
            loop = asyncio.get_running_loop()
            # At the earliest in the next turn of the loop: it takes along all that this turn appends.
            self._departure = loop.call_at(max(loop.time(), self._next), self._depart)

    def _depart(self) -> None:
        """Sends what waits, that of each topic on its own: one that is not there must not hold up another."""
        loop = asyncio.get_running_loop()
        self._departure = None
        lanes, self._ready = self._ready, {}
        records = sum(len(lane.waiting) for lane in lanes)
        self._next = loop.time() + min(max(records - PAUSE_FREE, 0) * PAUSE_EACH_S, PAUSE_MOST_S)
        topics: dict[str, list[_Lane]] = {}
        for lane in lanes:
            lane.busy = True
            topics.setdefault(lane.topic, []).append(lane)
        for topic, together in topics.items():
            task = loop.create_task(self._send(topic, together))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, topic: str, lanes: list[_Lane]) -> None:
        """Sees a batch of each lane into the log."""
        deadline = asyncio.get_running_loop().time() + APPEND_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline):
                producer = await self._open()
                found = await producer.partitions(topic)
            if found != self._partitions:
                raise LogError(f"{topic} has {found} partitions, not {self._partitions}")
            batches = {lane: self._pack(producer, lane) for lane in lanes}
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            # Nothing was handed over yet: every record that waits is surely not in the log.
            reason = NotAppendedError(f"kafka is not reached: {str(error) or type(error).__name__}")
            for lane in lanes:
                for entry in (*lane.sending, *lane.waiting):
                    _fail(entry, reason)
                lane.waiting.clear()
                lane.sending.clear()
                lane.busy = False
            return
        for lane in lanes:
            lane.deadline = deadline
            if not lane.sending:
                # All that waited had failed before, and the broker refuses a batch of nothing.
                lane.busy = False
                del batches[lane]
        self._flying.update(dict.fromkeys(batches))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        await producer.deliver(topic, list(batches.values()))

    def _pack(self, producer: Producer, lane: _Lane) -> Batch:
        """Moves as many waiting records as fit into a batch."""
        batch = producer.batch(lane.topic, lane.partition, MAX_BATCH)
        waiting, sending = lane.waiting, lane.sending
        while waiting:
            entry = waiting[0]
            if entry.done.done() and not entry.done.cancelled():
                waiting.popleft()
                continue
            if not batch.add(entry.key, entry.value, entry.trace):
                break
            sending.append(waiting.popleft())
        batch.close()
        batch.settle = partial(self._settle, lane, producer, batch)
        return batch

    def _settle(
        self, lane: _Lane, producer: Producer, batch: Batch, error: Exception | None
    ) -> None:
        """A batch is confirmed, has failed or was given up; the lane's next one may leave."""
        entries, lane.sending = lane.sending, []
        lane.busy = False
        del self._flying[lane]
        if lane.waiting:
            self._ready[lane] = None
            self._schedule()
        if error is None:
            for entry in entries:
                if entry.last and not entry.done.done():
                    entry.done.set_result(None)
            return
        log.warning(
            "a batch of %d records for %s was not confirmed: %s", len(entries), lane.topic, error
        )
        surely_not = isinstance(error, _SURELY_NOT) and not batch.doubtful
        for entry in entries:
            _fail(
                entry,
                NotAppendedError(str(error)) if surely_not else UnknownOutcome("the log failed"),
            )
        if not surely_not:
            self._replace(producer, error)

    def _sweep(self) -> None:
        """After its dead line nobody can know of a batch; until it settles its partition is stuck."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for lane in self._flying:
            if lane.deadline <= now:
                for entry in lane.sending:
                    _fail(entry, UnknownOutcome("the log did not answer in time"))
                while lane.waiting:
                    _fail(lane.waiting.popleft(), NotAppendedError("kafka does not answer"))
        self._sweeper = loop.call_later(SWEEP_S, self._sweep) if self._flying else None

    async def _open(self) -> Producer:
        if self._producer is not None:
            return self._producer
        async with self._opening:
            if self._producer is None:
                self._producer = await Producer.open(self._bootstrap, int(APPEND_TIMEOUT_S * 1000))
        return self._producer

    def _replace(self, producer: Producer, error: BaseException) -> None:
        """A new producer gets a new id and counts from zero: the old one may be out of step for ever."""
        if self._producer is not producer:
            return
        log.warning("the producer is replaced after: %s", error)
        # What else it has under way fails with it, so that nobody waits for an answer that never comes.
        self._producer = None
        task = asyncio.get_running_loop().create_task(producer.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits for what is under way, a while. Nothing may be appended any more."""
        lanes = self._lanes.values()
        under_way = [e.done for lane in lanes for e in (*lane.sending, *lane.waiting)]
        if waiting := {done for done in under_way if not done.done()} | self._tasks:
            await asyncio.wait(waiting, timeout=APPEND_TIMEOUT_S)
        for timer in (self._departure, self._sweeper):
            if timer is not None:
                timer.cancel()
        await end(*self._tasks)
        if self._producer is not None:
            await self._producer.close()
        closed = NotAppendedError("the log writer is closed")
        for lane in lanes:
            handed_over = lane in self._flying
            for entry in lane.sending:
                _fail(entry, UnknownOutcome("the log did not answer") if handed_over else closed)
            for entry in lane.waiting:
                _fail(entry, closed)


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


def _too_large(value: bytes) -> NotAppendedError:
    return NotAppendedError(f"a record of {len(value)} bytes is too large for the log")


def _fail(entry: _Append, error: Exception) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)
