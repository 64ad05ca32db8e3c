"""The bus on nats-py.

nats-py keeps the connection (connect, reconnect, ping, flush, JetStream). For our own subscriptions this class
hands each message to a plain callback: nats-py's own Subscription costs a queue, a task and 5 KB each, and parses
all headers of every message. It leans on a few private names of nats-py, whose version the locks pin and whose
presence `tests/contract/test_bus.py` checks on a real server.
"""

import asyncio
import logging
from collections.abc import Callable

from nats.aio.client import Client

from shared.adapters.nats_parser import LeanParser
from shared.bus import OnMessage
from shared.errors import Unavailable

log = logging.getLogger(__name__)

TICK_S = 0.001
MOST_TICKS = 10
TICKS_EACH = 1.5
"""Patient messages leave together: with the turn of the loop while few come, else after a tick in which none has joined
those that wait, or after so many ticks as fit their rate (`Patience`). What arrives together costs all behind it less:
one system call, one call of Redis, one batch of the log. It costs so much less that under load even the latencies
fall.
"""
MAX_PENDING = 32 << 20
"""Most bytes that wait for a slow server before `send` refuses."""


class _Listener:
    """Stands in `Client._subs`, so that nats-py subscribes again after a reconnect."""

    __slots__ = ("_queue", "_subject", "on_message")
    _max_msgs = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, subject: str, queue: str, on_message: OnMessage) -> None:
        self._subject = subject
        self._queue = queue
        self.on_message = on_message

    async def _drain(self) -> None:
        """Nothing waits here: callbacks run as messages arrive."""


class Patience:
    """How many ticks patient messages may wait: `TICKS_EACH` for each but the first that lately came in one. When few
    come there is nothing to wait for.
    """

    def __init__(self) -> None:
        self.ticks = 0
        self._rate = 0.0
        """Messages a tick."""
        self._since = 0.0
        self._count = 0
        """What has left since then."""

    def left(self, count: int, now: float) -> None:
        """So many have left together, at a time of the loop."""
        self._count += count
        passed = now - self._since
        if passed < TICK_S:  # those that do not wait may leave many times within one
            return
        self._rate = (self._rate + self._count * TICK_S / passed) / 2
        self._since, self._count = now, 0
        self.ticks = min(max(int((self._rate - 1) * TICKS_EACH), 0), MOST_TICKS)


class NatsBus(Client):
    """`shared.bus.Bus` on a NATS server. Reconnects for ever; `on_reconnect` is called after each time."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._ps = LeanParser(self)
        self._kicked = False
        self._tick: asyncio.TimerHandle | None = None
        """While patient messages wait."""
        self._ticks = 0
        self._waiting = 0
        """How many they are."""
        self._joined = False
        """Whether there are more of them than at the last tick."""
        self._patience = Patience()
        self._late: dict[int, bytes] = {}
        self._reconnect_listeners: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, url: str, name: str) -> "NatsBus":
        """Connects, waiting for the server if it is not up yet. `url` may list several servers, with credentials."""
        bus = cls()
        await bus.connect(
            url.split(","),
            name=name,
            max_reconnect_attempts=-1,  # nats-py gives up for good after 60 by default
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # it is only slept for
            ping_interval=10,
            pending_size=MAX_PENDING,
            error_cb=bus._on_error,
            reconnected_cb=bus._on_reconnected,
            disconnected_cb=bus._on_disconnected,
        )
        return bus

    @property
    def connected(self) -> bool:
        """Whether the server is reached right now."""
        return self._status == Client.CONNECTED

    def on_reconnect(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after every reconnect: what was published meanwhile is lost."""
        self._reconnect_listeners.append(listener)

    def send(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: bytes = b"",
        *,
        patient: bool = False,
    ) -> None:
        """See `Bus.send`."""
        if self._status != Client.CONNECTED or self._pending_data_size > MAX_PENDING:
            raise Unavailable("the message bus is not reached right now")
        if len(payload) + len(headers) > self._max_payload:
            raise ValueError(
                f"message of {len(payload)} bytes for {subject} is over the server's limit"
            )
        if headers:
            self._put(
                b"HPUB %b %b %d %d\r\n%b%b\r\n"
                % (
                    subject.encode(),
                    reply.encode(),
                    len(headers),
                    len(headers) + len(payload),
                    headers,
                    payload,
                ),
                patient,
            )
        else:
            self._put(
                b"PUB %b %b %d\r\n%b\r\n"
                % (subject.encode(), reply.encode(), len(payload), payload),
                patient,
            )

    def listen(self, subject: str, on_message: OnMessage, queue: str = "") -> int:
        """See `Bus.listen`. While the server is away the subscription waits for the reconnect."""
        self._sid += 1
        self._subs[self._sid] = _Listener(subject, queue, on_message)  # type: ignore[assignment]
        command = f"SUB {subject} {queue} {self._sid}\r\n".encode()
        if self._status == Client.CONNECTED:
            self._put(command)
        else:
            # A reconnect may be past the point where nats-py subscribes again.
            self._late[self._sid] = command
        return self._sid

    def unlisten(self, sid: int) -> None:
        """See `Bus.unlisten`."""
        self._late.pop(sid, None)
        if self._subs.pop(sid, None) is not None and self._status == Client.CONNECTED:
            self._put(b"UNSUB %d\r\n" % sid)

    async def flush(self, timeout: int = 10) -> None:
        """See `Bus.flush`. nats-py writes its PING past what still waits here, so that goes out first."""
        if self._status == Client.CONNECTED and self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        await super().flush(timeout)

    async def _process_pong(self) -> None:
        """A flush that was cancelled or timed out leaves its future behind; to resolve that one would raise, and end
        nats-py's read loop: the connection would be deaf until the next ping times out.
        """
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = self._loop.create_future()
        await super()._process_pong()

    def _put(self, command: bytes, patient: bool = False) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        if patient:
            self._waiting += 1
            self._joined = True
        if patient and self._patience.ticks:
            if self._tick is None:
                self._wait()
        elif not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._kick)

    def _wait(self) -> None:
        self._joined = False
        self._tick = self._loop.call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._ticks += 1
        if self._joined and self._ticks < self._patience.ticks:
            self._wait()
        else:
            self._kick()

    def _kick(self) -> None:
        """Wakes nats-py's flusher once for all that was put in this turn of the loop, and what waits longer.

        As one piece: a thousand subscriptions in pieces of their own cost three times as much to write.
        """
        self._kicked = False
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
            self._ticks = 0
        if self._waiting:
            self._patience.left(self._waiting, self._loop.time())
            self._waiting = 0
        # While the server takes nothing the flusher is awake already, and what waits must not be copied each time.
        if self._flush_queue is not None and self._flush_queue.empty():
            if len(self._pending) > 1:
                self._pending = [b"".join(self._pending)]
            self._flush_queue.put_nowait(self._loop.create_future())

    def listener_of(self, sid: int) -> OnMessage | None:
        """Who hears the messages of a subscription; None if it is one of nats-py's own."""
        listener: object = self._subs.get(sid)
        return listener.on_message if type(listener) is _Listener else None

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats: %s", str(error) or type(error).__name__)

    async def _on_disconnected(self) -> None:
        if not self.is_closed:
            log.warning("nats: disconnected, reconnecting")

    async def _on_reconnected(self) -> None:
        log.warning("nats: connected again")
        late, self._late = self._late, {}
        for command in late.values():
            # A repeated SUB of the same number changes nothing at the server.
            self._put(command)
        for tell in self._reconnect_listeners:
            tell()
