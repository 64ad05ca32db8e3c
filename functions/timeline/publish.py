"""Carries effects out on the bus: acks and errors to the askers, messages to the devices of both sides."""

from functions.timeline.core import Accepted, Conflicting, Dead, Effect, Repeated
from functions.timeline.metrics import Counters
from schemas.events import Head
from schemas.records import SendRequested
from shared import subjects
from shared.bus import Bus, pack_headers
from shared.errors import AppError, Conflict, Internal, Unavailable
from shared.function import to_user
from shared.ids import Private
from shared.telemetry import trace_id

_CONFLICT = Conflict("this client_msg_id already belongs to another message", field="client_msg_id")


class Publisher:
    """Sends what a batch became. What is lost while the bus is away, clients learn from `resync` and `head`."""

    def __init__(self, bus: Bus, counters: Counters) -> None:
        self._bus = bus
        self._counters = counters

    def publish(self, effects: list[Effect]) -> None:
        """Never raises."""
        for effect in effects:
            try:
                self._publish(effect)
            except Unavailable:
                self._counters.unsent += 1

    def head(self, conversation_id: str, members: Private, seq: int, rev: int) -> None:
        """Tells the members' devices how far a conversation is. Raises: Unavailable."""
        for user_id in members:
            push = to_user(user_id, Head(conversation_id, seq, rev))
            self._bus.send(push.subject, push.frame)

    def _publish(self, effect: Effect) -> None:
        if type(effect) is Accepted:
            request = effect.request
            if request.reply:
                self._bus.send(request.reply, effect.ack)
            frame = b'{"type":"message","data":%b}' % effect.message
            headers = pack_headers({"Im-Conn": request.conn}) if request.conn else b""
            for user_id in effect.members:
                self._bus.send(subjects.user(user_id), frame, headers=headers)
            self._counters.accepted += 1
        elif type(effect) is Repeated:
            if effect.request.reply:
                self._bus.send(effect.request.reply, effect.ack)
            self._counters.repeated += 1
        elif type(effect) is Conflicting:
            self._refuse(effect.request, _CONFLICT)
            self._counters.conflicts += 1
        elif type(effect) is Dead and effect.request is not None:
            self._refuse(effect.request, Internal())

    def _refuse(self, request: SendRequested, error: AppError) -> None:
        if not request.reply:
            return
        headers = {
            "Nats-Service-Error": error.message,
            "Nats-Service-Error-Code": str(error.status),
        }
        self._bus.send(
            request.reply, error.body(trace_id(request.trace)), headers=pack_headers(headers)
        )
