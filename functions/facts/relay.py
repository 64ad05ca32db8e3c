"""From the log to JetStream: each fact is published, confirmed, and only then left behind.

Of one partition a fact is published when the one before it is confirmed. So integrators see each conversation in order
even if NATS dies in the middle of a batch; partitions go side by side.
"""

import asyncio
import logging
import re
from collections.abc import Mapping

import msgspec

from shared.adapters.jetstream import publish
from shared.bus import Inbox, pack_headers
from shared.dead_letters import dead_letter
from shared.event_reader import EventReader
from shared.log import DEAD, EVENTS, LogWriter, Record
from shared.patience import patiently
from shared.reader_progress import Progress
from shared.subjects import EVENT_PREFIX

log = logging.getLogger(__name__)

_TYPE = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")
_ID = re.compile(r"[a-z0-9_.-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Counters(msgspec.Struct):
    """Totals since the start."""

    published: int = 0
    dead: int = 0
    failures: int = 0


class _Fact(msgspec.Struct):
    """The parts of a fact that say where it goes; facts of later versions pass as well."""

    type: str
    id: str
    trace: str = ""


_decode = msgspec.json.Decoder(_Fact).decode


class Relay(EventReader):
    """The reader of `im.events` that publishes."""

    def __init__(self, progress: Progress, inbox: Inbox, writer: LogWriter) -> None:
        self.counters = Counters()
        super().__init__(progress, self.counters)
        self._inbox = inbox
        self._writer = writer

    async def handle(self, records: list[Record]) -> Mapping[int, int]:
        """See `EventReader.handle`."""
        lanes: dict[int, list[Record]] = {}
        for record in records:
            lanes.setdefault(record.partition, []).append(record)
        ends = await asyncio.gather(*map(self._relay_partition, lanes.values()))
        return {p: end for p, end in zip(lanes, ends, strict=True) if end}

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
            if not self.owns(record.partition):
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
