"""All sockets of a worker, and the one timer that looks after them: heart-beats and log-ins that do not come.

The sockets are spread over the ticks of a heart-beat, so that 15,000 pings are not written in one go.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol

HEARTBEAT_S = 25
"""Every connection is pinged this often, and dropped when two pings stay without any sign of life."""
AUTH_TIMEOUT_S = 5.0
"""How long a connection may take to say who it is."""
TICK_S = 0.5


class Beating(Protocol):
    """A socket, as the roster sees it."""

    beats_missed: int

    def ping(self) -> None:
        """Asks for a sign of life."""

    def silent(self) -> None:
        """Gives up: two pings were not answered."""

    def auth_missing(self) -> None:
        """No token came in time."""

    def push(self, wire: bytes) -> None:
        """Writes a finished frame."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""


class Roster:
    """Sockets by the tick at which they are pinged."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: list[set[Beating]] = [set() for _ in range(int(HEARTBEAT_S / TICK_S))]
        self._slot_of: dict[Beating, int] = {}
        self._anonymous: dict[Beating, float] = {}
        self._now = 0
        self._emptied: asyncio.Event | None = None
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def add(self, socket: Beating, *, anonymous: bool) -> None:
        """Takes in a socket; its first ping comes one heart-beat from now."""
        self._slots[self._now].add(socket)
        self._slot_of[socket] = self._now
        if anonymous:
            self._anonymous[socket] = self._loop.time() + AUTH_TIMEOUT_S

    def logged_in(self, socket: Beating) -> None:
        """The socket has said who it is."""
        self._anonymous.pop(socket, None)

    def discard(self, socket: Beating) -> None:
        """The socket is gone."""
        self._anonymous.pop(socket, None)
        slot = self._slot_of.pop(socket, None)
        if slot is not None:
            self._slots[slot].discard(socket)
        if self._emptied is not None and not self._slot_of:
            self._emptied.set()

    def __iter__(self) -> Iterator[Beating]:
        """All sockets there are now."""
        return iter(list(self._slot_of))

    async def emptied(self, timeout_s: float) -> None:
        """Returns when the last socket is gone, or after `timeout_s`."""
        self._emptied = asyncio.Event()
        if self._slot_of:
            await asyncio.wait([self._loop.create_task(self._emptied.wait())], timeout=timeout_s)

    def close(self) -> None:
        """Stops the timer."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._now = (self._now + 1) % len(self._slots)
        for socket in list(self._slots[self._now]):
            if socket.beats_missed >= 2:
                socket.silent()
            else:
                socket.beats_missed += 1
                socket.ping()
        now = self._loop.time()
        for socket, deadline in list(self._anonymous.items()):
            if deadline > now:
                break  # in order of arrival
            del self._anonymous[socket]
            socket.auth_missing()
