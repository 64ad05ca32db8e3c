"""Stands in for function `groups` towards the edge, on any bus: answers its questions and publishes its events."""

from collections.abc import Iterable

import msgspec

from schemas.events import Event, GroupJoined, GroupLeft, GroupMembers
from schemas.internal import (
    Among,
    CheckSessions,
    EndedSessions,
    GetAmong,
    GetMemberships,
    Membership,
    Memberships,
    SessionOf,
    UserMemberships,
)
from shared import subjects
from shared.bus import NO_RESPONDERS, Bus, pack_headers
from shared.function import frame


class GroupService:
    """Knows the members of groups, and which sessions have ended.

    version: of each group's members. asked: users of each question so far. silent: questions stay without an answer.
    refusing: they are answered as if nobody served them.
    """

    def __init__(self, bus: Bus) -> None:
        self.members: dict[int, set[int]] = {}
        self.version: dict[int, int] = {}
        self.ended: list[SessionOf] = []
        self.asked: list[list[int]] = []
        self.asked_among: list[tuple[int, list[int]]] = []
        self.checked: list[list[SessionOf]] = []
        self.silent = self.refusing = False
        self._bus = bus
        for command, answer in (
            ("group.memberships", self._memberships),
            ("group.among", self._among),
            ("auth.check", self._check),
        ):
            bus.listen(subjects.command(0, command), answer)

    def put(self, group_id: int, *user_ids: int) -> None:
        """Makes a group of these, unseen."""
        self.members[group_id] = set(user_ids)
        self.version[group_id] = self.version.get(group_id, 0) + 1

    def change(
        self,
        group_id: int,
        joined: Iterable[int] = (),
        left: Iterable[int] = (),
        *,
        lost: bool = False,
    ) -> int:
        """Changes members and publishes what tells so (unless `lost`). Returns the new version."""
        joined, left = list(joined), list(left)
        members = self.members.setdefault(group_id, set())
        members |= set(joined)
        members -= set(left)
        version = self.version[group_id] = self.version.get(group_id, 0) + 1
        if not lost:
            for user_id in left:
                self.to_user(user_id, GroupLeft(group_id, version, "kicked"))
            for user_id in joined:
                self.to_user(user_id, GroupJoined(group_id, version, 1))
            self.to_group(group_id, GroupMembers(group_id, version, joined, left))
        return version

    def to_user(self, user_id: int, event: Event) -> None:
        """Publishes an event for one user."""
        self._bus.send(subjects.user(user_id), frame(event, event.type))

    def to_group(self, group_id: int, event: Event) -> None:
        """Publishes an event for a group's members."""
        self._bus.send(subjects.group(group_id), frame(event, event.type))

    def write(self, group_id: int, payload: bytes, conn: str = "") -> None:
        """Publishes a frame as the timeline does."""
        headers = {"Im-Members": str(self.version.get(group_id, 0))}
        if conn:
            headers["Im-Conn"] = conn
        self._bus.send(subjects.group(group_id), payload, headers=pack_headers(headers))

    def _memberships(self, _subject: str, reply: str, payload: bytes, _headers: bytes) -> None:
        asked = msgspec.json.decode(payload, type=GetMemberships).user_ids
        self.asked.append(asked)
        found = [
            UserMemberships(
                user_id,
                [Membership(g, self.version[g]) for g, m in self.members.items() if user_id in m],
            )
            for user_id in asked
        ]
        self._answer(reply, Memberships(found))

    def _among(self, _subject: str, reply: str, payload: bytes, _headers: bytes) -> None:
        asked = msgspec.json.decode(payload, type=GetAmong)
        self.asked_among.append((asked.group_id, asked.user_ids))
        members = self.members.get(asked.group_id, set())
        among = [user_id for user_id in asked.user_ids if user_id in members]
        self._answer(reply, Among(self.version.get(asked.group_id, 0), among))

    def _check(self, _subject: str, reply: str, payload: bytes, _headers: bytes) -> None:
        asked = msgspec.json.decode(payload, type=CheckSessions).sessions
        self.checked.append(asked)
        self._answer(reply, EndedSessions([one for one in asked if one in self.ended]))

    def _answer(self, reply: str, body: object) -> None:
        if self.refusing:
            self._bus.send(reply, b"", headers=NO_RESPONDERS + b"\r\n\r\n")
        elif not self.silent:
            self._bus.send(reply, msgspec.json.encode(body))
