"""One WebSocket connection: carries out what `Session` decides, on an asyncio transport.

It takes the transport over from the front door, or from aiohttp after its upgrade. So an idle connection costs this
object and its transport, and no task, queue, timer or HTTP parser; a received frame reaches the bus without a wake-up
in between.
"""

import asyncio
from collections.abc import Iterator
from functools import partial

from edge import frames
from edge.answers import Answer
from edge.checks import SessionChecks
from edge.directory import Directory
from edge.frames import text_frame
from edge.hub import Hub
from edge.outbox import Outbox
from edge.presence import Arrivals
from edge.road import Road, identity
from edge.roster import HEARTBEAT_S, Roster
from edge.session import Action, Ask, Close, LoggedIn, Session, Write
from edge.stats import Stats
from schemas.events import Ready
from schemas.presence import Connection
from shared.auth import TokenVerifier
from shared.bus import Bus
from shared.function import frame
from shared.ids import random_token

MAX_OUTGOING = 1 << 20
"""Most bytes that wait for a client that does not read; beyond it is closed with 4408."""
CLOSE_GRACE_S = 5.0
"""How long a closing connection may take to send what is buffered and hear the client's close."""


class Common:
    """What all sockets of a worker share."""

    __slots__ = (
        "arrivals",
        "checks",
        "hub",
        "outbox",
        "road",
        "roster",
        "stats",
        "verifier",
    )

    def __init__(
        self, bus: Bus, road: Road, roster: Roster, stats: Stats, verifier: TokenVerifier
    ) -> None:
        directory = Directory(road)
        self.hub = Hub(bus, directory)
        self.checks = SessionChecks(directory, self.hub)
        self.arrivals = Arrivals()
        self.outbox = Outbox()
        self.road = road
        self.roster = roster
        self.stats = stats
        self.verifier = verifier

    def close(self) -> None:
        """Stops what runs in the background."""
        self.roster.close()
        self.checks.close()
        self.hub.close()

    def here(self) -> Iterator[Connection]:
        """All connections that are ready."""
        return (s.connection for s in self.roster if isinstance(s, Socket) and s.is_live)


class Socket(asyncio.Protocol):
    """A client's connection, after the handshake."""

    __slots__ = (
        "_abort",
        "_common",
        "_out",
        "_session",
        "_transport",
        "_who",
        "beats_missed",
        "connection_id",
        "is_live",
        "session_id",
        "user_id",
    )

    def __init__(self, common: Common, transport: asyncio.Transport) -> None:
        self._common = common
        self._transport = transport
        self._session = Session(common.verifier.verify)
        self._who = b""
        self.is_live = False
        self._out: list[bytes] | None = None  # frames of this turn, made when there is one
        self._abort: asyncio.TimerHandle | None = None
        self.connection_id = random_token()
        self.session_id = ""
        self.user_id = 0
        self.beats_missed = 0

    def start(self, token: str) -> None:
        """Begins, with the token of the handshake or "" if an auth frame is to come."""
        self._transport.set_write_buffer_limits(high=MAX_OUTGOING)
        self._common.stats.connections += 1
        self._common.stats.connects += 1
        self._common.roster.add(self, anonymous=not token)
        if token:
            for action in self._session.log_in(token):
                self._carry_out(action)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.beats_missed = 0
        session = self._session
        before = session.received
        for action in session.receive(data):
            self._carry_out(action)
        self._common.stats.frames_in += session.received - before

    def pause_writing(self) -> None:
        """More than MAX_OUTGOING waits: the client is too slow. The others must not wait for it."""
        if not self._session.closed:
            self._common.stats.slow_clients += 1
            # Not at once: this is called in the midst of a write, perhaps of a fan-out.
            asyncio.get_running_loop().call_soon(
                self.close, frames.SLOW, "too slow: the outgoing buffer is full"
            )

    def resume_writing(self) -> None:
        """See asyncio.Protocol. A slow client is not forgiven: its pushes are lost, it must connect again."""

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._session.closed = True
        self._out = None
        self._common.stats.connections -= 1
        self._common.roster.discard(self)
        self._leave()
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None

    def live(self) -> None:
        """The subscription stands: says `ready`, and lets pushes through from now on."""
        self.is_live = True
        self._common.arrivals.joined(self.connection)
        ready = Ready(self.user_id, self.connection_id, HEARTBEAT_S)
        self._write(text_frame(frame(ready, Ready.type)))
        self._common.checks.add(self.user_id, self.session_id)

    def push(self, wire: bytes) -> None:
        """Writes an event's finished frame. Before `ready` there is none: the client catches up after it."""
        if self.is_live:
            self._write(wire)

    def close(self, code: int, reason: str) -> None:
        """Closes from this side."""
        if not self._session.closed:
            self._carry_out(self._session.close(code, reason))

    def auth_missing(self) -> None:
        """Closes because no token came in time."""
        if not self._session.closed and self._session.claims is None:
            for action in self._session.too_late():
                self._carry_out(action)

    def ping(self) -> None:
        """Asks for a sign of life."""
        if not self._session.closed:
            self._put(frames.PING_FRAME)

    def silent(self) -> None:
        """Gives up on a client that answers no ping: there is nobody to say goodbye to."""
        self._common.stats.silent_clients += 1
        self._session.closed = True
        self._transport.abort()

    def _write(self, wire: bytes) -> None:
        if not self._session.closed:
            self._put(wire)
            self._common.stats.frames_out += 1

    def _put(self, wire: bytes) -> None:
        if self._out is None:
            self._out = [wire]
            self._common.outbox.add(self)
        else:
            self._out.append(wire)

    def flush(self) -> None:
        """See `outbox.Writer`."""
        out, self._out = self._out, None
        if out is not None:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Ask):
            self._ask(action)
        elif isinstance(action, Write):
            self._put(action.wire)
            self._common.stats.frames_out += 1
        elif isinstance(action, LoggedIn):
            self._logged_in(action)
        else:
            self._close(action)

    def _ask(self, ask: Ask) -> None:
        self._common.road.ask(
            ask.command, self.user_id, ask.data, self._who, partial(self._answered, ask.request_id)
        )

    def _answered(self, request_id: bytes, answer: Answer) -> None:
        self._write(self._session.answered(request_id, answer))

    def _logged_in(self, action: LoggedIn) -> None:
        claims = action.claims
        self.user_id, self.session_id = claims.sub, claims.sid
        self._who = identity(claims, self.connection_id)
        self._common.roster.logged_in(self)
        self._common.hub.join(self.user_id, self)

    def _close(self, action: Close) -> None:
        self._leave()
        if action.wire:
            self._put(action.wire)
        self.flush()
        if action.at_once:
            self._transport.close()
        # Otherwise the client answers first: some report 1006 when the end comes together with our close.
        if self._abort is None:
            self._abort = asyncio.get_running_loop().call_later(
                CLOSE_GRACE_S, self._transport.abort
            )

    def _leave(self) -> None:
        if self.user_id:
            self._common.hub.leave(self.user_id, self)
        if self.is_live:
            self.is_live = False
            self._common.arrivals.left(self.connection)

    @property
    def connection(self) -> Connection:
        """Whose it is, for `presence`."""
        return Connection(self.user_id, self.connection_id, self.session_id)
