"""Carries effects out on the bus: acks and errors to the askers, messages and changes to the devices of all members."""

from collections.abc import Iterable

import msgspec

from functions.timeline.heads import Newest
from functions.timeline.metrics import Counters
from functions.timeline.pending import Answered
from functions.timeline.state import (
    Accepted,
    Changed,
    Dead,
    Effect,
    Moved,
    Place,
    Refused,
    Repeated,
    Unchanged,
)
from schemas.errors import STATUS, ErrorBody, ErrorCode
from schemas.events import Head
from schemas.records import AnyRequest, SendRequested
from shared import subjects
from shared.bus import Bus, pack_headers
from shared.errors import Internal, Unavailable
from shared.function import frame
from shared.ids import Private, group_of, members_of_private
from shared.telemetry import trace_id


class Publisher:
    """Sends what a batch became. What is lost while the bus is away, clients learn from `resync` and `head`."""

    def __init__(self, bus: Bus, counters: Counters) -> None:
        self._bus = bus
        self._counters = counters

    def publish(self, effects: list[Effect]) -> None:
        """All but the acks that wait for the COMMIT. Never raises."""
        for effect in effects:
            try:
                self._publish(effect)
            except Unavailable:
                self._counters.unsent += 1
        # Cumulative: only the last of a batch is worth a push.
        delivered: dict[Place, Moved] = {
            (effect.request.user_id, effect.request.conversation_id): effect
            for effect in effects
            if type(effect) is Moved and not effect.read
        }
        for effect in delivered.values():
            if effect.members is not None:
                self._send(
                    subjects.user(effect.members.other(effect.request.user_id)), effect.frame
                )

    def answer(self, answers: Iterable[Answered]) -> None:
        """Sends the acks that have waited for the COMMIT. Never raises."""
        for reply, ack in answers:
            self._send(reply, ack)

    def head(self, newest: Newest) -> None:
        """Tells the members' devices how far a conversation is. Raises: Unavailable."""
        members = members_of_private(newest.conversation_id)
        push = frame(Head(newest.conversation_id, newest.seq, newest.rev), Head.type)
        headers = _headers("", None if members else newest.members_version)
        for subject in _audience(newest.conversation_id, members):
            self._bus.send(subject, push, headers=headers)

    def _send(self, subject: str, payload: bytes) -> None:
        try:
            self._bus.send(subject, payload)
        except Unavailable:
            self._counters.unsent += 1

    def _publish(self, effect: Effect) -> None:
        if type(effect) is Accepted:
            request = effect.request
            sent = type(request) is SendRequested
            if request.reply and sent:
                self._bus.send(request.reply, effect.ack)
            push = b'{"type":"message","data":%b}' % effect.message
            # The answer to a change of a group is another one than its message, so all connections get that.
            conn = request.conn if sent else ""
            headers = _headers(conn, None if effect.members else effect.head.members_version)
            for subject in _audience(request.conversation_id, effect.members):
                self._bus.send(subject, push, headers=headers)
            self._counters.accepted += 1
        elif type(effect) is Changed:
            self._counters.changed += 1
            if not effect.frame:
                return
            # To the asking connection too: so a device has a change when all others have it, whoever made it.
            headers = _headers("", None if effect.members else effect.head.members_version)
            for subject in _audience(effect.request.conversation_id, effect.members):
                self._bus.send(subject, effect.frame, headers=headers)
        elif type(effect) is Moved:
            self._counters.moved += 1
            if effect.read:
                for user_id in effect.members or (effect.request.user_id,):
                    self._bus.send(subjects.user(user_id), effect.frame)
        elif type(effect) is Unchanged:
            self._counters.unchanged += 1
        elif type(effect) is Repeated:
            if effect.request.reply:
                self._bus.send(effect.request.reply, effect.ack)
            self._counters.repeated += 1
        elif type(effect) is Refused:
            self._refuse(effect.request, effect.code, effect.message, effect.field)
            self._counters.refused += 1
        elif type(effect) is Dead and effect.request is not None:
            error = Internal()
            self._refuse(effect.request, error.code, error.message)

    def _refuse(
        self, request: AnyRequest, code: ErrorCode, message: str, field: str | None = None
    ) -> None:
        if not request.reply:
            return
        body = msgspec.json.encode(ErrorBody(code, message, trace_id(request.trace), None, field))
        headers = {"Nats-Service-Error": message, "Nats-Service-Error-Code": str(STATUS[code])}
        self._bus.send(request.reply, body, headers=pack_headers(headers))


def _headers(conn: str, members_version: int | None) -> bytes:
    """conn: who is not to get it. members_version: of the group whose members are; None: it is no group."""
    if members_version is not None:
        members = b"Im-Members: %d\r\n" % members_version
        return b"NATS/1.0\r\n%b%b\r\n" % (_conn(conn), members)
    return b"NATS/1.0\r\n%b\r\n" % _conn(conn) if conn else b""


def _conn(conn: str) -> bytes:
    return b"Im-Conn: %b\r\n" % conn.encode() if conn else b""


def _audience(conversation_id: str, members: Private | None) -> list[str]:
    """Subjects that reach all members' devices."""
    if members is not None:
        return [f"{subjects.USER_PREFIX}{user_id}" for user_id in members]
    group_id = group_of(conversation_id)
    assert group_id is not None
    return [subjects.group(group_id)]
