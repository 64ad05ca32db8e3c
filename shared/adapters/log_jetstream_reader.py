"""Reads a log that is a JetStream stream; see `log_jetstream` for what it promises."""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

import msgspec

from shared import subjects
from shared.adapters.jetstream import (
    NO_MESSAGE_FOUND,
    Answer,
    ClosedError,
    JetStreamError,
    call,
    patiently_call,
)
from shared.adapters.log_jetstream import check_partitions, stream_of, subject_prefix
from shared.bus import Bus, Inbox, header
from shared.errors import Unavailable, UnknownOutcome
from shared.ids import random_token
from shared.log import Owner, Record

log = logging.getLogger(__name__)


class JetStreamReader:
    """`shared.log.LogReader` on an ephemeral pull consumer over all partitions.

    The consumer is made anew, from the last record on, whenever it may have lost something: silence (it sends
    heart-beats), a hole in its own numbering, a server that was away.
    """

    PREFETCH = 1_000
    """Most records that wait in memory or are on their way."""
    HEARTBEAT_S = 0.5
    SILENCE_S = 1.6
    EXPIRES_S = 30

    def __init__(self, bus: Bus, topic: str, group: str, partitions: int, owner: Owner) -> None:
        self._bus = bus
        self._topic = topic
        self._group = group
        self._stream = stream_of(topic)
        self._prefix = subject_prefix(topic)
        self._partitions = partitions
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(bus, subjects.FUNCTION_INBOX)
        self._next: dict[int, int] | None = None  # by partition; None: not assigned yet
        self._position = 0  # in the stream, of all partitions
        self._buffer: deque[Record] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._closed = False
        # Of the present consumer:
        self._consumer = ""
        self._sid = 0
        self._delivered = 0
        self._asked_for = 0
        self._heard = 0.0
        self._unread = 0

    async def check(self) -> None:
        """Waits for the server and checks the stream. Raises: LogError."""
        await check_partitions(self._inbox, self._topic, self._partitions)

    @property
    def lag(self) -> int:
        """See `LogReader.lag`."""
        return self._unread + len(self._buffer)

    async def read(self, most: int) -> list[Record]:
        """See `LogReader.read`."""
        if self._next is None:
            try:
                await self._assign()
            except ClosedError:
                return []
        if not self._buffer and not self._closed:
            await self._keep_consuming()
            self._wake = self._loop.create_future()
            timer = self._loop.call_later(1.0, self._wake_up)
            await self._wake
            timer.cancel()
        if self._closed:
            return []
        buffer = self._buffer
        records = [buffer.popleft() for _ in range(min(most, len(buffer)))]
        self._pull()
        return records

    def seek(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.seek`."""
        if self._next is None:
            return
        self._next.update(offsets)
        self._buffer = deque(r for r in self._buffer if r.partition not in offsets)
        self._position = min(self._position, *offsets.values())
        self._forget_consumer()

    async def stored(self, offsets: Mapping[int, int]) -> None:
        """See `LogReader.stored`: the stream needs not know, its owner is one process."""

    async def close(self) -> None:
        """See `LogReader.close`."""
        if self._closed:
            return
        self._closed = True
        self._wake_up()
        self._forget_consumer()
        if self._next is not None:
            await self._owner.revoked(frozenset(self._next))
        self._inbox.close()

    async def _assign(self) -> None:
        """Takes all partitions and finds the first record that one of them has not stored yet."""
        starts = dict(await self._owner.assigned(frozenset(range(self._partitions))))
        info = await self._patiently_call(f"STREAM.INFO.{self._stream}")
        end = int(info.state["last_seq"]) + 1
        for partition, start in starts.items():
            if start > end:
                log.warning(
                    "%s lost its end (partition %d is stored up to %d, the stream ends before %d): going on from there",
                    self._stream, partition, start, end,
                )  # fmt: skip
                starts[partition] = end
        firsts = [
            await self._first_of(partition, start)
            for partition, start in starts.items()
            if start < end
        ]
        self._position = min((first for first in firsts if first is not None), default=end)
        self._next = starts

    async def _first_of(self, partition: int, start: int) -> int | None:
        """The partition's first record at or after `start`: an idle partition must not hold the others back."""
        ask = {"next_by_subj": f"{self._prefix}{partition}", "seq": max(start, 1)}
        try:
            answer = await self._patiently_call(f"STREAM.MSG.GET.{self._stream}", ask)
        except JetStreamError as error:
            if error.code != NO_MESSAGE_FOUND:
                raise
            return None
        return int(answer.message["seq"])

    async def _patiently_call(self, name: str, ask: object = None) -> Answer:
        """Raises: ClosedError, JetStreamError."""
        return await patiently_call(self._inbox, name, ask, lambda: self._closed)

    async def _keep_consuming(self) -> None:
        """Makes a new consumer if there is none, or if the present one is silent."""
        if self._consumer and self._loop.time() - self._heard > self.SILENCE_S:
            log.warning(
                "%s: silent, reading on with a new consumer from %d", self._stream, self._position
            )
            self._forget_consumer()
        if self._consumer or not self._bus.connected:
            return
        name = f"{self._group}-{random_token()}"
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(self._position, 1),
            "ack_policy": "none",
            "inactive_threshold": 60 * 1_000_000_000,
            "mem_storage": True,
            "num_replicas": 1,
        }
        create = {"stream_name": self._stream, "config": config}
        try:
            await call(self._inbox, f"CONSUMER.CREATE.{self._stream}.{name}", create)
        except (Unavailable, UnknownOutcome, JetStreamError) as error:
            log.warning("%s: no consumer yet: %s", self._stream, error)
            return
        if self._closed:
            return
        self._consumer = name
        self._delivered = self._asked_for = 0
        self._heard = self._loop.time()
        self._sid = self._bus.listen(f"{subjects.FUNCTION_INBOX}{name}", self._on_message)
        self._pull()

    def _forget_consumer(self) -> None:
        """The server removes it by itself after a while without a request."""
        if self._consumer:
            self._bus.unlisten(self._sid)
            self._consumer = ""

    def _pull(self) -> None:
        """Asks for more once half of what may wait is used up."""
        room = self.PREFETCH - self._asked_for - len(self._buffer)
        if not self._consumer or room < self.PREFETCH // 2:
            return
        ask = {
            "batch": room,
            "expires": self.EXPIRES_S * 1_000_000_000,
            "idle_heartbeat": int(self.HEARTBEAT_S * 1_000_000_000),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        try:
            self._bus.send(
                subject, msgspec.json.encode(ask), f"{subjects.FUNCTION_INBOX}{self._consumer}"
            )
        except Unavailable:
            self._forget_consumer()
        else:
            self._asked_for += room

    def _on_message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        self._heard = self._loop.time()
        if not reply.startswith("$JS.ACK."):
            self._on_status(headers)
            return
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<offset>.<number>.<ns>.<pending>[.<random>]
        tokens = reply.split(".")
        _, _, offset, number, nanoseconds, unread = (
            tokens[3:9] if len(tokens) == 9 else tokens[5:11]
        )
        self._delivered += 1
        self._asked_for -= 1
        if int(number) != self._delivered:
            log.warning(
                "%s: the consumer lost a record, reading again from %d",
                self._stream,
                self._position,
            )
            self._forget_consumer()
            return
        self._unread = int(unread)
        self._position = int(offset) + 1
        partition = int(subject[len(self._prefix) :])
        assert self._next is not None
        if partition in self._next and self._next[partition] < self._position:
            self._next[partition] = self._position
            self._buffer.append(
                Record(partition, self._position - 1, int(nanoseconds) // 1_000_000, payload)
            )
            self._wake_up()

    def _on_status(self, headers: bytes) -> None:
        """A heart-beat (100), the end of a request (404, 408, 409), or the end of the consumer."""
        status = headers[9:12]
        if status == b"100":
            return
        ended = header(headers, b"Nats-Pending-Messages: ")
        if status in (b"404", b"408") and ended.isdecimal():
            self._asked_for -= int(ended)
            self._pull()
        else:
            log.warning(
                "%s: %s", self._stream, headers[9:80].split(b"\r\n")[0].decode("utf-8", "replace")
            )
            self._forget_consumer()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
