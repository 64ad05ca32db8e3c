"""From the log to JetStream: each fact is published, confirmed, and only then left behind.

Of one partition a fact is published when the one before it is confirmed. So integrators see each conversation in order
even if NATS dies in the middle of a batch; partitions go side by side.
"""

import asyncio
import logging
import re
from collections.abc import Mapping

import msgspec

from functions.facts.progress import Progress
from shared.adapters.jetstream import publish
from shared.bus import Inbox, pack_headers
from shared.dead_letters import dead_letter
from shared.log import DEAD, EVENTS, LogReader, LogWriter, Record
from shared.patience import patiently
from shared.subjects import EVENT_PREFIX

log = logging.getLogger(__name__)

MAX_BATCH = 500
_TYPE = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")
_ID = re.compile(r"[a-z0-9_.-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Counters(msgspec.Struct):
    """Totals since the start; `lag` is the number of facts that are not read yet."""

    published: int = 0
    dead: int = 0
    failures: int = 0
    lag: int = 0


class _Fact(msgspec.Struct):
    """The parts of a fact that say where it goes; facts of later versions pass as well."""

    type: str
    id: str
    trace: str = ""


_decode = msgspec.json.Decoder(_Fact).decode


class Relay:
    """The owner of its partitions (`shared.log.Owner`). `run` works until `stop`."""

    def __init__(self, progress: Progress, inbox: Inbox, writer: LogWriter) -> None:
        self.counters = Counters()
        self._progress = progress
        self._inbox = inbox
        self._writer = writer
        self._reader: LogReader | None = None
        self._owned: frozenset[int] = frozenset()
        self._stopping = False
        self._turn = asyncio.Lock()

    async def run(self, reader: LogReader) -> None:
        """Works until `stop`."""
        self._reader = reader
        while not self._stopping:
            records = await reader.read(MAX_BATCH)
            self.counters.lag = reader.lag
            async with self._turn:
                await self._relay(records)

    async def stop(self) -> None:
        """Leaves the log; what is not published yet, the next owner publishes."""
        self._stopping = True
        async with (
            self._turn
        ):  # aiokafka would never end a commit of offsets under which it is closed
            if self._reader is not None:
                await self._reader.close()

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """See `shared.log.Owner.assigned`."""
        starts = await patiently(lambda: self._progress.load(partitions), self.counters)
        self._owned |= partitions
        return starts

    async def revoked(self, partitions: frozenset[int]) -> None:
        """See `shared.log.Owner.revoked`. Waits for nothing: two owners for a moment only publish the same twice."""
        self._owned -= partitions

    async def _relay(self, records: list[Record]) -> None:
        lanes: dict[int, list[Record]] = {}
        for record in records:
            lanes.setdefault(record.partition, []).append(record)
        ends = await asyncio.gather(*map(self._relay_partition, lanes.values()))
        done = {p: end for p, end in zip(lanes, ends, strict=True) if end and p in self._owned}
        if done and self._reader is not None:
            await patiently(lambda: self._progress.store(done), self.counters)
            await self._reader.stored(done)

    async def _relay_partition(self, records: list[Record]) -> int:
        """Publishes records of one partition. Returns the offset behind the last one, 0 if there is none."""
        end = 0
        for record in records:
            if not await self._publish(record):
                break
            end = record.offset + 1
        return end

    async def _publish(self, record: Record) -> bool:
        """Publishes one fact, however long that takes. False: this owner is no longer asked to."""
        try:
            fact = _decode(record.value)
            if not (_TYPE.fullmatch(fact.type) and _ID.fullmatch(fact.id)):
                raise ValueError("type or id cannot stand in a subject or header")
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            await self._bury(record, str(error))
            return True
        headers = {"Nats-Msg-Id": fact.id}
        if _TRACE.fullmatch(fact.trace):
            headers["traceparent"] = fact.trace

        async def attempt() -> bool:
            if self._stopping or record.partition not in self._owned:
                return False
            await publish(
                self._inbox, EVENT_PREFIX + fact.type, record.value, pack_headers(headers)
            )
            self.counters.published += 1
            return True

        return await patiently(attempt, self.counters)

    async def _bury(self, record: Record, reason: str) -> None:
        log.error("fact %d of partition %d is dead: %s", record.offset, record.partition, reason)
        self.counters.dead += 1
        letter = [(str(record.partition), dead_letter(EVENTS, record, reason))]
        await patiently(lambda: self._writer.append_all(DEAD, letter), self.counters)
