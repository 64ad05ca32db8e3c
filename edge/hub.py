"""Who is here: users with their connections, one NATS subscription per user, counted by reference, and their groups.

A connection is told `ready` only when the server surely has the subscriptions of its user and of all his groups: first
his own, then his groups are read, then theirs, so that no change of membership falls between. After the bus was away
everything is read again, and everybody told to `resync`.

When nobody can tell the groups, `ready` does not wait for them: they are asked for again in the background, and the
user is told to `resync` when they are known.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, Protocol

import msgspec

from edge.directory import USERS_AT_ONCE, NotKnownError, parts
from edge.frames import KICKED, text_frame
from edge.groups import Group, Groups, Member, User
from schemas.events import GroupJoined, GroupLeft, Kicked, Resync
from schemas.internal import Among, Membership
from schemas.types import Model
from shared import subjects
from shared.bus import Bus, header
from shared.function import frame

log = logging.getLogger(__name__)

RETRY_S = 1.0
WAIT_S = 2.0
"""How long connects wait for their groups."""
_KICKED_START = b'{"type":"kicked"'
_JOINED_START = b'{"type":"group.joined"'
_CONTROL = (_KICKED_START, _JOINED_START, b'{"type":"group.left"')
_RESYNC = text_frame(frame(Resync(), Resync.type))


class Tells(Protocol):
    """Knows who is in which group (`edge.directory.Directory`). Both raise NotKnownError."""

    async def memberships(self, user_ids: list[int]) -> dict[int, list[Membership]]:
        """The groups of at most USERS_AT_ONCE users."""

    async def among(self, group_id: int, user_ids: list[int]) -> Among:
        """Which of these are members."""


class _KickedFrame(Model):
    data: Kicked


class _JoinedFrame(Model):
    data: GroupJoined


class _LeftFrame(Model):
    data: GroupLeft


_decode_kicked = msgspec.json.Decoder(_KickedFrame).decode
_decode_joined = msgspec.json.Decoder(_JoinedFrame).decode
_decode_left = msgspec.json.Decoder(_LeftFrame).decode


class Hub:
    """All users of one process."""

    def __init__(self, bus: Bus, tells: Tells) -> None:
        self._bus = bus
        self._tells = tells
        self._users: dict[int, User] = {}
        self.groups = Groups(self, self._users.get)
        self._joining: dict[str, tuple[User, Member]] = {}
        self._announced: list[tuple[User, bytes]] = []
        """Frames that tell users of a new group, until its subscription stands."""
        self._opened = self._flushed = 0
        """Group subscriptions begun so far, and how many of them surely stand."""
        self._resync = False
        self._unread: dict[int, User] = {}
        """Users whose groups nobody could tell."""
        self._task: asyncio.Task[None] | None = None
        self._late: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, user_id: int, member: Member) -> None:
        """Takes in a connection; its `live` is called when nothing can be missed any more, perhaps at once."""
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id)
            user.sid = self._bus.listen(subjects.user(user_id), partial(self._deliver, user))
        user.members[member.connection_id] = member
        if user.settled and self._bus.connected:
            member.live()
            return
        self._joining[member.connection_id] = (user, member)
        self._start()

    def leave(self, user_id: int, member: Member) -> None:
        """Lets a connection go; with a user's last one his subscriptions end."""
        # While the bus is away clients come and go, and none of them must stay behind here.
        self._joining.pop(member.connection_id, None)
        user = self._users.get(user_id)
        if user is None or user.members.pop(member.connection_id, None) is None or user.members:
            return
        del self._users[user_id]
        self._unread.pop(user_id, None)
        self._bus.unlisten(user.sid)
        self.groups.gone(user)

    def kick(self, user_id: int, session_id: str, reason: str) -> None:
        """Tells a session's connections that it has ended, and closes them."""
        user = self._users.get(user_id)
        if user is not None:
            kicked = Kicked(session_id, reason)
            _kick(user, kicked, text_frame(frame(kicked, Kicked.type)))

    def reconnected(self) -> None:
        """The bus was away: what was pushed meanwhile is lost to this process."""
        self._resync = True
        self._unread.clear()
        for user in self._users.values():
            user.settled = False
        # A flush that began before the break would only end by its time-out.
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._start()

    def close(self) -> None:
        """Stops waiting for the bus."""
        for task in (*self._tasks, self._task, self._late):
            if task is not None:
                task.cancel()

    # --- what `Groups` wants done

    def listen(self, group: Group) -> int:
        """See `groups.Io.listen`."""
        self._opened += 1
        return self._bus.listen(subjects.group(group.id), group)

    def unlisten(self, sid: int) -> None:
        """See `groups.Io.unlisten`."""
        self._bus.unlisten(sid)

    def ask(self, group: Group, user_ids: list[int]) -> None:
        """See `groups.Io.ask`."""
        self._spawn(self._ask(group, user_ids))

    def ask_later(self, group: Group) -> None:
        """See `groups.Io.ask_later`."""
        asyncio.get_running_loop().call_later(RETRY_S, self.groups.ask_again, group)

    def resync(self, users: Iterable[User]) -> None:
        """See `groups.Io.resync`."""
        for user in users:
            for member in user.members.values():
                member.push(_RESYNC)

    # --- events for one user

    def _deliver(
        self, user: User, _subject: str, _reply: str, payload: bytes, headers: bytes
    ) -> None:
        """An event: to all connections but the one that caused it. The wire bytes are built once."""
        wire = text_frame(payload)
        if payload.startswith(_CONTROL):
            self._control(user, payload, wire)
            return
        sender = header(headers, b"Im-Conn: ") if headers else ""
        for connection_id, member in user.members.items():
            if connection_id != sender:
                member.push(wire)

    def _control(self, user: User, payload: bytes, wire: bytes) -> None:
        if payload.startswith(_KICKED_START):
            _kick(user, _decode_kicked(payload).data, wire)
        elif payload.startswith(_JOINED_START):
            joined = _decode_joined(payload).data
            self.groups.joined(user, joined.group_id, joined.members_version)
            if self._opened == self._flushed:
                _push(user, wire)
            else:
                # His devices pull what was written before; so they must hear of it when nothing more can be missed.
                self._announced.append((user, wire))
                self._start()
        else:
            left = _decode_left(payload).data
            self.groups.left(user, left.group_id, left.members_version)
            _push(user, wire)

    # --- connects

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        """One round for all who wait; those who come meanwhile wait for the next."""
        # While the bus is away there is nothing to wait for: `reconnected` starts this again.
        while (self._joining or self._resync or self._announced) and self._bus.connected:
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 whatever nats-py raises: it is only tried again
                log.warning("connects wait, trying again: %s", str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
        self._task = None

    async def _round(self) -> None:
        joining, resync, announced = list(self._joining.values()), self._resync, self._announced[:]
        await self._flush()
        if not self._bus.connected:
            return
        users = self._users.values() if resync else dict.fromkeys(user for user, _ in joining)
        read = await self._read([user for user in users if not user.settled])
        if self._opened != self._flushed:
            await self._flush()
        for user in read:
            user.settled = True
        if resync:
            self._resync = False
            self.resync(self._users.values())
        del self._announced[: len(announced)]
        for user, wire in announced:
            _push(user, wire)
        for _, member in joining:
            if self._joining.pop(member.connection_id, None) is not None:
                member.live()

    async def _flush(self) -> None:
        opened = self._opened
        await self._bus.flush()
        self._flushed = max(self._flushed, opened)

    async def _read(self, users: list[User]) -> list[User]:
        """Reads the groups of users and returns them; those whom nobody can tell come later."""
        if self._unread:  # who comes now must not wait for a service that does not answer
            self._unread.update({user.id: user for user in users})
            return []
        done = await asyncio.gather(
            *(self._read_part(part, WAIT_S) for part in parts(users, USERS_AT_ONCE))
        )
        if self._unread and (self._late is None or self._late.done()):
            log.warning("groups of users are not known; connects do not wait for them")
            self._late = asyncio.get_running_loop().create_task(self._read_late())
        return [user for part in done for user in part]

    async def _read_part(self, users: list[User], wait_s: float | None = None) -> list[User]:
        """Those whose groups are read: all or none."""
        try:
            async with asyncio.timeout(wait_s):
                found = await self._tells.memberships([user.id for user in users])
        except (NotKnownError, TimeoutError):
            self._unread.update({user.id: user for user in users if not user.gone})
            return []
        for user in users:
            if not user.gone:
                self.groups.read(user, found.get(user.id, ()))
        return users

    async def _read_late(self) -> None:
        """Goes on asking until the groups of all are known."""
        while self._unread:
            await asyncio.sleep(RETRY_S)
            late = list(self._unread.values())[:USERS_AT_ONCE]
            if not self._bus.connected or not await self._read_part(late):
                continue
            try:
                await self._flush()
            except Exception as error:  # noqa: BLE001 whatever nats-py raises
                log.warning("groups not subscribed: %s", str(error) or type(error).__name__)
                continue
            for user in late:
                if self._unread.get(user.id) is user:
                    del self._unread[user.id]
                    user.settled = True
            self.resync(late)
        log.warning("groups of all users are known again")

    async def _ask(self, group: Group, user_ids: list[int]) -> None:
        among: Among | None = None
        try:
            among = await self._tells.among(group.id, user_ids)
        except NotKnownError as error:
            log.warning("members of group %d not known, trying again: %s", group.id, error)
        self.groups.answered(group, among)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _push(user: User, wire: bytes) -> None:
    for member in user.members.values():
        member.push(wire)


def _kick(user: User, kicked: Kicked, wire: bytes) -> None:
    for member in list(user.members.values()):
        if member.session_id == kicked.session_id:
            member.push(wire)
            member.close(KICKED, kicked.reason)
