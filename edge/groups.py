"""Which local users are in which groups, without I/O: one subscription for each group that somebody here is in.

A group's `version` says as of which `members_version` its list of local users is right. What is published for the group
names the version it is meant for; an event that names a newer one waits, with all that follow it, until `Io.ask` has
told who of us is a member still. So a control event that got lost, or comes late, cannot keep a removed member in.

Control events of one user may come in any order (several processes publish them): the newest version wins.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from edge.frames import text_frame
from schemas.events import GroupMembers
from schemas.internal import Among, Membership
from schemas.types import Model
from shared.bus import header

MOST_HELD = 1 << 20
"""Bytes of events that wait for one group's members; with more they are dropped, and its members told to resync."""
ASK_AGAIN = 3
"""Times to ask once more if the answer is older than an event; then the answer is taken for the truth."""

_MEMBERS_START = b'{"type":"group.members"'


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


class User:
    """One user's connections in this process, and the groups that he is in.

    heard: newest version of the control events about him, by group. settled: his groups have been read since the bus
    was last away.
    """

    __slots__ = ("groups", "heard", "id", "members", "settled", "sid")

    def __init__(self, user_id: int) -> None:
        self.id = user_id
        self.sid = 0
        self.members: dict[str, Member] = {}
        self.groups: list[Group] = []
        self.heard: dict[int, int] | None = None  # few users are moved while they are here
        self.settled = False

    @property
    def gone(self) -> bool:
        """Whether his last connection has left."""
        return not self.members

    def hear(self, group_id: int, version: int) -> bool:
        """Notes a control event; False if a newer one was here before."""
        if version <= self.heard_of(group_id):
            return False
        if self.heard is None:
            self.heard = {}
        self.heard[group_id] = version
        return True

    def heard_of(self, group_id: int) -> int:
        """Newest version of a control event about him in this group, 0 if there was none."""
        return self.heard.get(group_id, 0) if self.heard is not None else 0


class _Doubt:
    """A group whose members are being asked for.

    candidates: users who may be in it, for the next question. held: events that wait. needed: the answer must not be
    older.
    """

    __slots__ = ("asked", "candidates", "held", "needed", "rounds", "size")

    def __init__(self, needed: int) -> None:
        self.asked: list[User] | None = None
        self.candidates: list[User] = []
        self.held: list[tuple[bytes, bytes]] = []
        self.size = 0
        self.needed = needed
        self.rounds = 0

    def suspect(self, user: User) -> None:
        """Asks about a user as well, the next time."""
        if user not in self.candidates:
            self.candidates.append(user)

    def hold(self, payload: bytes, headers: bytes, version: int) -> None:
        """Keeps an event that is meant for the members of `version`."""
        self.needed = max(self.needed, version)
        self.size += len(payload)
        if self.size > MOST_HELD:
            self.held.clear()
        else:
            self.held.append((payload, headers))


class Group:
    """A group with its local users; called for each event on its subject.

    newest: version by which the last of them joined while he was here.
    """

    __slots__ = ("_groups", "doubt", "id", "newest", "sid", "users", "version")

    def __init__(self, groups: "Groups", group_id: int, version: int) -> None:
        self._groups = groups
        self.id = group_id
        self.version = version
        self.newest = 0
        self.sid = 0
        self.users: list[User] = []
        self.doubt: _Doubt | None = None

    def __call__(self, _subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        """See `shared.bus.OnMessage`."""
        self._groups.event(self, payload, headers)


class Io(Protocol):
    """What `Groups` wants done."""

    def listen(self, group: Group) -> int:
        """Subscribes; `group` is to be called for each event. Returns the number for `unlisten`."""

    def unlisten(self, sid: int) -> None:
        """Ends a subscription."""

    def ask(self, group: Group, user_ids: list[int]) -> None:
        """Asks who of these is a member; the answer goes to `Groups.answered`, later."""

    def ask_later(self, group: Group) -> None:
        """Calls `Groups.ask_again` after a while."""

    def resync(self, users: Iterable[User]) -> None:
        """Tells users that events may have been lost."""


class _MembersFrame(Model):
    data: GroupMembers


_decode_members = msgspec.json.Decoder(_MembersFrame).decode


class Groups:
    """All groups of one process. `find` gives the user of an id who is here, or None."""

    def __init__(self, io: Io, find: Callable[[int], User | None]) -> None:
        self._io = io
        self._find = find
        self._groups: dict[int, Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def read(self, user: User, memberships: Iterable[Membership]) -> None:
        """Takes what was read of a user's groups, after his control events were subscribed to."""
        left = {group.id: group for group in user.groups}
        for membership in memberships:
            group_id, version = membership.group_id, membership.members_version
            known = left.pop(group_id, None)
            if user.heard_of(group_id) > version:
                continue
            group = known or self._groups.get(group_id)
            if group is not None and version > group.version:
                # Changes are on their way to us, or lost, and some may be about him and older than this.
                self._doubt(group, user)
            elif known is None:
                self._enter(user, group_id, version)
        for group in left.values():
            # Either he has left it, or he joined when this was on its way already.
            self._leave(user, group)
            if user.heard_of(group.id):
                self._doubt(group, user)
            self._close_if_empty(group)

    def joined(self, user: User, group_id: int, version: int) -> None:
        """Takes a control event."""
        if user.hear(group_id, version):
            self._enter(user, group_id, version)

    def left(self, user: User, group_id: int, version: int) -> None:
        """Takes a control event: nothing of the group reaches the user from here on."""
        group = self._groups.get(group_id)
        if not user.hear(group_id, version) or group is None:
            return
        was_in = group in user.groups
        self._leave(user, group)
        if was_in and version <= group.version:
            # He was a member of that version: perhaps he is back, and this came late.
            self._doubt(group, user)
        self._close_if_empty(group)

    def gone(self, user: User) -> None:
        """A user's last connection has left."""
        for group in user.groups:
            group.users.remove(user)
            self._close_if_empty(group)
        user.groups = []

    def event(self, group: Group, payload: bytes, headers: bytes) -> None:
        """Takes what was published for a group: delivers it, or keeps it until its members are known.

        What names no version (who is typing, say) is for those who are members now.
        """
        named = header(headers, b"Im-Members: ") if headers else ""
        version = int(named) if named else group.version
        doubt = group.doubt
        if doubt is not None:
            doubt.hold(payload, headers, version)
        elif payload.startswith(_MEMBERS_START):
            self._members(group, payload, headers)
        elif version > group.version:
            self._doubt(group).hold(payload, headers, version)
        else:
            _deliver(group, payload, headers, version if named else group.newest)

    def answered(self, group: Group, among: Among | None) -> None:
        """Takes the answer to `Io.ask`; None: there was none."""
        doubt = group.doubt
        if doubt is None or doubt.asked is None:
            return
        asked, doubt.asked = doubt.asked, None
        if among is None or (among.members_version < doubt.needed and doubt.rounds < ASK_AGAIN):
            doubt.rounds += among is not None
            for user in asked:
                doubt.suspect(user)
            self._io.ask_later(group)
            return
        self._sort(group, asked, among)
        group.version = max(group.version, among.members_version, doubt.needed)
        if doubt.candidates:
            self._ask(group, doubt)
            return
        group.doubt = None
        held = doubt.held
        if doubt.size > MOST_HELD:
            self._io.resync(group.users)
        for payload, headers in held:
            self.event(group, payload, headers)
        self._close_if_empty(group)

    def ask_again(self, group: Group) -> None:
        """Repeats a question that had no good answer."""
        if group.doubt is not None and group.doubt.asked is None:
            self._ask(group, group.doubt)

    def _enter(self, user: User, group_id: int, version: int) -> None:
        """A user who was a member as of `version` and is not on the list."""
        group = self._groups.get(group_id)
        if group is None:
            group = self._groups[group_id] = Group(self, group_id, version)
            group.sid = self._io.listen(group)
        elif group in user.groups:
            return
        elif group.doubt is not None or version < group.version:
            self._doubt(group, user)
            return
        _add(group, user)

    def _leave(self, user: User, group: Group) -> None:
        if group in user.groups:
            user.groups.remove(group)
            group.users.remove(user)
        if group.doubt is not None and user in group.doubt.candidates:
            group.doubt.candidates.remove(user)

    def _members(self, group: Group, payload: bytes, headers: bytes) -> None:
        """The change from one version to the next, for all members."""
        change = _decode_members(payload).data
        if change.members_version > group.version + 1:
            self._doubt(group).hold(payload, headers, change.members_version)
            return
        if change.members_version == group.version + 1:
            for user in filter(None, map(self._find, change.left)):
                if user.hear(group.id, change.members_version):
                    self._leave(user, group)
            for user in filter(None, map(self._find, change.joined)):
                if user.hear(group.id, change.members_version):
                    self._enter(user, group.id, change.members_version)
            group.version = change.members_version
        _deliver(group, payload, headers, change.members_version)
        self._close_if_empty(group)

    def _doubt(self, group: Group, user: User | None = None) -> _Doubt:
        """Begins to ask, or lets the next question be about this user too."""
        doubt = group.doubt
        if doubt is None:
            doubt = group.doubt = _Doubt(group.version)
        if user is not None:
            doubt.suspect(user)
        if doubt.asked is None:
            self._ask(group, doubt)
        return doubt

    def _ask(self, group: Group, doubt: _Doubt) -> None:
        new = [user for user in doubt.candidates if not user.gone and user not in group.users]
        doubt.candidates = []
        doubt.asked = group.users + new
        if doubt.asked:
            self._io.ask(group, [user.id for user in doubt.asked])
        else:
            group.doubt = None
            self._close_if_empty(group)

    def _sort(self, group: Group, asked: list[User], among: Among) -> None:
        """Makes the list right as of the answer."""
        members = set(among.user_ids)
        for user in asked:
            if user.gone or user.heard_of(group.id) > among.members_version:
                continue
            here = group in user.groups
            if user.id not in members:
                self._leave(user, group)
            elif not here:
                _add(group, user)

    def _close_if_empty(self, group: Group) -> None:
        if not group.users and group.doubt is None and self._groups.get(group.id) is group:
            del self._groups[group.id]
            self._io.unlisten(group.sid)


def _add(group: Group, user: User) -> None:
    group.users.append(user)
    user.groups.append(group)
    if user.heard is not None:
        group.newest = max(group.newest, user.heard_of(group.id))


def _deliver(group: Group, payload: bytes, headers: bytes, version: int) -> None:
    """To all who were local members as of `version`; the wire bytes are built once."""
    wire = text_frame(payload)
    sender = header(headers, b"Im-Conn: ") if headers else ""
    users = group.users
    if version < group.newest:
        # Written before the newest of them joined: it is not for him.
        users = [user for user in users if user.heard_of(group.id) <= version]
    for user in users:
        for connection_id, member in user.members.items():
            if connection_id != sender:
                member.push(wire)
