"""Who is here: users with their connections, one NATS subscription per user, counted by reference.

A connection is told `ready` only when the server surely has its user's subscription, so nothing after `ready` is
missed; after the bus was away everybody is told to `resync`.
"""

import asyncio
import logging
from typing import Protocol

import msgspec

from edge.frames import KICKED, text_frame
from schemas.events import Kicked, Resync
from schemas.types import Model
from shared import subjects
from shared.bus import Bus, header
from shared.function import frame

log = logging.getLogger(__name__)

RETRY_S = 1.0
_KICKED_START = b'{"type":"kicked"'
_RESYNC = text_frame(frame(Resync(), Resync.type))


class Member(Protocol):
    """One connection, as the hub sees it."""

    connection_id: str
    session_id: str

    def live(self) -> None:
        """Its subscription stands: `ready` may be said, and pushes follow."""

    def push(self, wire: bytes) -> None:
        """Writes a finished frame; drops it before `live`, since the client catches up after `ready`. Never blocks."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""


class _KickedFrame(Model):
    data: Kicked


_decode_kicked = msgspec.json.Decoder(_KickedFrame).decode


class _User:
    """One user's connections in this process."""

    __slots__ = ("members", "sid")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.sid = 0

    def deliver(self, _subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        """An event: to all connections but the one that caused it. The wire bytes are built once."""
        wire = text_frame(payload)
        if payload.startswith(_KICKED_START):
            self._kick(payload, wire)
            return
        sender = header(headers, b"Im-Conn: ") if headers else ""
        for connection_id, member in self.members.items():
            if connection_id != sender:
                member.push(wire)

    def _kick(self, payload: bytes, wire: bytes) -> None:
        kicked = _decode_kicked(payload).data
        for member in list(self.members.values()):
            if member.session_id == kicked.session_id:
                member.push(wire)
                member.close(KICKED, kicked.reason)


class Hub:
    """All users of one process."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._users: dict[int, _User] = {}
        self._joining: dict[str, Member] = {}
        self._resync = False
        self._task: asyncio.Task[None] | None = None

    def join(self, user_id: int, member: Member) -> None:
        """Takes in a connection; its `live` is called when nothing can be missed any more."""
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = _User()
            user.sid = self._bus.listen(subjects.user(user_id), user.deliver)
        user.members[member.connection_id] = member
        self._joining[member.connection_id] = member
        if self._task is None:
            self._settle()

    def leave(self, user_id: int, member: Member) -> None:
        """Lets a connection go; with a user's last one his subscription ends."""
        # While the bus is away clients come and go, and none of them must stay behind here.
        self._joining.pop(member.connection_id, None)
        user = self._users.get(user_id)
        if (
            user is not None
            and user.members.pop(member.connection_id, None) is not None
            and not user.members
        ):
            del self._users[user_id]
            self._bus.unlisten(user.sid)

    def reconnected(self) -> None:
        """The bus was away: what was pushed meanwhile is lost to this process."""
        self._resync = True
        # A flush that began before the break would only end by its time-out.
        self._settle()

    def close(self) -> None:
        """Stops waiting for the bus."""
        if self._task is not None:
            self._task.cancel()

    def _settle(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        """One flush for all who wait; those who come meanwhile wait for the next."""
        # While the bus is away there is nothing to wait for: `reconnected` starts this again.
        while (self._joining or self._resync) and self._bus.connected:
            joining, resync = list(self._joining.values()), self._resync
            try:
                await self._bus.flush()
            except Exception as error:  # noqa: BLE001 whatever nats-py raises: it is only tried again
                log.warning("bus not flushed, trying again: %s", str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
                continue
            if not self._bus.connected:
                break
            if resync:
                self._resync = False
                self._push_resync()
            for member in joining:
                if self._joining.pop(member.connection_id, None) is not None:
                    member.live()
        self._task = None

    def _push_resync(self) -> None:
        for user in self._users.values():
            for member in user.members.values():
                member.push(_RESYNC)
