"""Brings a function the facts it follows: a durable pull consumer on the stream `IM_EVT`, named after the function.

A fact is acknowledged when `deliver` says that it was dealt with; otherwise it comes again, later and later, for as
long as the stream keeps it. All processes of a function (or of its bridge) share the consumer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from shared import subjects
from shared.adapters.event_stream import STREAM
from shared.adapters.jetstream import JetStreamError, call
from shared.bus import Bus, Inbox, header
from shared.errors import Unavailable, UnknownOutcome
from shared.ids import random_token

log = logging.getLogger(__name__)

ACK_WAIT_S = 60
"""Longer than `deliver` may take: after that the fact is given to somebody else."""
EXPIRES_S = 30
HEARTBEAT_S = 5.0
SILENCE_S = 12.0
RETRY_S = 1.0
LONGEST_DELAY_S = 300
ALARM_AFTER = 10


class Arrived(NamedTuple):
    """A fact as it stands in the stream. name: `<domain>.<fact>`. tries: 1 when it comes for the first time."""

    name: str
    id: str
    payload: bytes
    traceparent: str
    tries: int


Deliver = Callable[[Arrived], Awaitable[bool]]


class FactReader:
    """Pulls facts, at most `max_in_flight` at a time, from `start` to `drain`."""

    def __init__(
        self, bus: Bus, name: str, facts: Sequence[str], deliver: Deliver, max_in_flight: int = 64
    ) -> None:
        self._bus = bus
        self._name = name
        self._facts = list(facts)
        self._deliver = deliver
        self._max_in_flight = max_in_flight
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(bus, subjects.FUNCTION_INBOX)
        self._address = f"{subjects.FUNCTION_INBOX}{random_token()}"
        self._sid = 0
        self._asked_for = 0
        self._heard = -SILENCE_S
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        """The consumer is made: no later fact is missed."""

    def start(self) -> None:
        """Begins; waits in the background for JetStream and its stream."""
        self._sid = self._bus.listen(self._address, self._on_message)
        self._keeper = self._loop.create_task(self._keep(), name=f"facts of {self._name}")

    async def drain(self, timeout_s: float) -> None:
        """Takes no more; what is under way is finished or comes again elsewhere."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._bus.unlisten(self._sid)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in left:
                task.cancel()
        self._inbox.close()

    async def _keep(self) -> None:
        """Makes the consumer, and asks again whenever it has fallen silent."""
        while True:
            if self._loop.time() - self._heard > SILENCE_S and await self._ensure():
                self.ready.set()
                self._heard = self._loop.time()
                self._asked_for = 0
                self._pull()
            await asyncio.sleep(RETRY_S)

    async def _ensure(self) -> bool:
        config = {
            "durable_name": self._name,
            "name": self._name,
            # What happened before the function was first deployed is not its business.
            "deliver_policy": "new",
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_S * 1_000_000_000,
            "max_deliver": -1,
            "filter_subjects": [subjects.EVENT_PREFIX + fact for fact in self._facts],
        }
        try:
            await call(
                self._inbox,
                f"CONSUMER.CREATE.{STREAM}.{self._name}",
                {"stream_name": STREAM, "config": config},
            )
        except (Unavailable, UnknownOutcome, JetStreamError) as error:
            log.warning("no facts yet: %s", error)
            return False
        return True

    def _pull(self) -> None:
        """Asks for more once half of what may be in flight is used up."""
        room = self._max_in_flight - self._asked_for - len(self._tasks)
        if room < max(self._max_in_flight // 2, 1):
            return
        ask = {
            "batch": room,
            "expires": EXPIRES_S * 1_000_000_000,
            "idle_heartbeat": int(HEARTBEAT_S * 1_000_000_000),
        }
        try:
            self._bus.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{self._name}",
                msgspec.json.encode(ask),
                self._address,
            )
        except Unavailable:
            return  # the silence will be noticed
        self._asked_for += room

    def _on_message(self, subject: str, reply: str, payload: bytes, headers: bytes) -> None:
        if not reply.startswith("$JS.ACK."):
            self._on_status(headers)
            return
        self._heard = self._loop.time()
        self._asked_for -= 1
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<offset>.<number>.<ns>.<pending>[.<random>]
        tokens = reply.split(".")
        tries = tokens[4] if len(tokens) == 9 else tokens[6]
        fact = Arrived(
            subject.removeprefix(subjects.EVENT_PREFIX),
            header(headers, b"Nats-Msg-Id: "),
            payload,
            header(headers, b"traceparent: "),
            int(tries),
        )
        task = self._loop.create_task(self._take(fact, reply))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._keeper is not None and not self._keeper.cancelled():
            self._pull()

    async def _take(self, fact: Arrived, reply: str) -> None:
        try:
            done = await self._deliver(fact)
        except Exception:
            log.exception("fact %s failed", fact.id)
            done = False
        if done:
            answer = b"+ACK"
        else:
            delay_s = min(2 ** min(fact.tries - 1, 16), LONGEST_DELAY_S)
            answer = b'-NAK {"delay":%d}' % (delay_s * 1_000_000_000)
            level = logging.ERROR if fact.tries >= ALARM_AFTER else logging.WARNING
            alarm = "ALARM: " if fact.tries >= ALARM_AFTER else ""
            log.log(
                level,
                "%sfact %s failed for the %d. time; it comes again in %d s",
                alarm, fact.id, fact.tries, delay_s,
            )  # fmt: skip
        try:
            self._bus.send(reply, answer)
        except Unavailable:
            log.warning("fact %s comes again: the bus is not reached", fact.id)

    def _on_status(self, headers: bytes) -> None:
        """A heart-beat (100), the end of a request (404, 408), or a consumer that is gone (409)."""
        status = headers[9:12]
        if status in (b"404", b"408"):
            ended = header(headers, b"Nats-Pending-Messages: ")
            self._asked_for -= int(ended) if ended.isdecimal() else self._asked_for
            self._heard = self._loop.time()
            self._pull()
        elif status == b"100":
            self._heard = self._loop.time()
        else:
            log.warning("facts: %s", headers[9:80].split(b"\r\n")[0].decode("utf-8", "replace"))
            self._heard = -SILENCE_S  # it is made anew
