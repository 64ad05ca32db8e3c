"""What the timeline appends to the log itself: facts (`im.events`) and dead letters (`im.dead`)."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

import msgspec

from functions.timeline.metrics import Counters
from functions.timeline.state import Accepted, Changed, Dead, Effect
from shared.dead_letters import dead_letter
from shared.log import DEAD, EVENTS, REQUESTS, LogWriter
from shared.patience import patiently
from shared.telemetry import about

log = logging.getLogger(__name__)

MOST = 1_000
"""Facts of one call of the log."""

_encode = msgspec.json.Encoder().encode


class Outbox:
    """Facts on their way. What `add` was given goes out in order; what failed is repeated with all that follows it.

    They leave with the COMMIT that they belong to, many in one request: readers of facts can wait that long.
    """

    def __init__(self, writer: LogWriter, counters: Counters) -> None:
        self._writer = writer
        self._counters = counters
        self._waiting: list[tuple[str, bytes]] = []
        self._turn = asyncio.Lock()

    def add(self, effects: Iterable[Effect]) -> None:
        """Takes the facts of a batch."""
        self._waiting += [
            (effect.request.conversation_id, fact(effect))
            for effect in effects
            if type(effect) is Accepted or type(effect) is Changed
        ]

    async def flush(self) -> None:
        """Returns when all that was added before is in the log, however long that takes."""
        async with self._turn:
            left = len(self._waiting)
            while left > 0:
                batch = self._waiting[: min(left, MOST)]
                await self._append(EVENTS, batch)
                del self._waiting[: len(batch)]
                left -= len(batch)
                self._counters.facts += len(batch)

    async def bury(self, dead: Dead) -> None:
        """Puts a record into the dead letters, however long that takes: else it would be lost."""
        record = dead.record
        log.error(
            "record %d of partition %d is dead: %s",
            record.offset,
            record.partition,
            dead.reason,
            extra=about(dead.request.trace if dead.request is not None else ""),
        )
        self._counters.dead += 1
        await self._append(
            DEAD, [(str(record.partition), dead_letter(REQUESTS, record, dead.reason))]
        )

    async def _append(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        await patiently(lambda: self._writer.append_all(topic, records), self._counters)


def fact(effect: Accepted | Changed) -> bytes:
    """One of `schemas.facts` around the message's JSON."""
    request = effect.request
    trace = b'"trace":%b,' % _encode(request.trace) if request.trace else b""
    if type(effect) is Changed:
        kind = effect.kind.encode()
        return b'{"type":"message.%b","id":"message.%b.%d.%d",%b"data":%b,"user_id":%d}' % (
            kind,
            kind,
            effect.msg_id,
            effect.rev,
            trace,
            effect.message,
            request.user_id,
        )
    assert type(effect) is Accepted
    return b'{"type":"message.sent","id":"message.sent.%d",%b"data":%b}' % (
        effect.row[0],
        trace,
        effect.message,
    )
