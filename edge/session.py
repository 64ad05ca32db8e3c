"""One client's side of the WebSocket protocol, without I/O: bytes come in, actions come out.

`edge.socket` carries the actions out. What does not depend on a network, a clock or a bus is decided here:
log-in, the envelope, what a frame means, how many commands may be in flight.
"""

import json
from collections.abc import Callable, Iterator
from random import getrandbits
from typing import Annotated

import msgspec
from msgspec import Meta

from edge import frames
from edge.answers import NULL, Answer, ack_message, error_message
from edge.frames import FrameError, FrameReader, text_frame
from schemas.commands import BY_NAME, Command
from schemas.types import MAX_NUMBER, Model
from shared.auth import Claims
from shared.errors import AppError, BadRequest, RateLimited, Unauthenticated

MAX_MESSAGE = 64 * 1024
"""Longest message of a client in bytes; a longer one closes with 1009."""
MAX_IN_FLIGHT = 64
"""Most commands of one connection that wait for their answers."""
RETRY_AFTER_MS = 200

RequestId = (
    Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)] | Annotated[str, Meta(max_length=64)] | None
)


ALMOST_JSON = "half of a surrogate pair, NaN, or nested too deeply"
"""What JavaScript and Python write as JSON and nobody else reads."""


class Envelope(Model):
    """What every frame of a client looks like. `id` comes back with the answer."""

    type: str
    id: RequestId = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Auth(Model):
    """Data of the first frame, unless the token came with the URL or a header."""

    token: str


class Write(msgspec.Struct, frozen=True, gc=False):
    """Bytes for the client."""

    wire: bytes


class LoggedIn(msgspec.Struct, frozen=True):
    """The token was valid: the connection belongs to this user now."""

    claims: Claims


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A command for the bus. Its answer goes to `Session.answered` with the same `request_id` (JSON of the id)."""

    command: Command
    request_id: bytes
    data: bytes


class Close(msgspec.Struct, frozen=True, gc=False):
    """The connection ends after this frame. `at_once`: the client agrees already, so nothing is to be waited for."""

    wire: bytes
    at_once: bool = False


Action = Write | LoggedIn | Ask | Close

_decode = msgspec.json.Decoder(Envelope).decode
_decode_auth = msgspec.json.Decoder(Auth).decode
_encode = msgspec.json.encode


class Session:
    """State of one connection.

    claims: whose it is, None before the log-in. closed: nothing but the client's own close is awaited any more.
    in_flight: commands without an answer. received: data frames so far.
    """

    __slots__ = ("_reader", "_verify", "claims", "closed", "in_flight", "received")

    def __init__(self, verify: Callable[[str], Claims]) -> None:
        """`verify` gives a token's claims or raises Unauthenticated."""
        self._verify = verify
        self._reader: FrameReader | None = FrameReader(MAX_MESSAGE)
        self.claims: Claims | None = None
        self.closed = False
        self.in_flight = 0
        self.received = 0

    def log_in(self, token: str, request_id: bytes = NULL) -> Iterator[Action]:
        """Takes the token. A bad one: an error frame, then 4401."""
        try:
            self.claims = self._verify(token)
        except Unauthenticated as error:
            yield self._error(error, request_id)
            yield self.close(frames.UNAUTHENTICATED, error.message)
        else:
            yield LoggedIn(self.claims)

    def receive(self, data: bytes) -> Iterator[Action]:
        """Takes bytes from the network. Exhaust the iterator before the next call."""
        if self._reader is None:
            return
        try:
            for message in self._reader.feed(data):
                if message.opcode == frames.TEXT and not self.closed:
                    self.received += 1
                    yield from self._text(message.payload)
                elif message.opcode == frames.CLOSE:
                    yield self._closed_by_client(message.payload)
                    return
                elif message.opcode == frames.PING and not self.closed:
                    yield Write(frames.pong_frame(message.payload))
                elif message.opcode == frames.BINARY and not self.closed:
                    self.received += 1
                    refused = BadRequest("binary frames are not understood; send JSON text")
                    yield self._error(refused, NULL)
        except FrameError as error:
            self._reader = None
            if not self.closed:
                yield self.close(error.code, error.reason)

    def answered(self, request_id: bytes, answer: Answer) -> bytes:
        """Wire bytes of a command's answer."""
        self.in_flight -= 1
        if answer.status:
            return text_frame(error_message(request_id, answer.body))
        return text_frame(ack_message(request_id, answer.body))

    def close(self, code: int, reason: str = "") -> Close:
        """Ends the session from this side."""
        self.closed = True
        return Close(frames.close_frame(code, reason))

    def too_late(self) -> Iterator[Action]:
        """No token came in time."""
        error = Unauthenticated("no auth frame in time")
        yield self._error(error, NULL)
        yield self.close(frames.UNAUTHENTICATED, error.message)

    def _closed_by_client(self, payload: bytes) -> Close:
        """Answers the client's close with the same code; to an answer to ours there is nothing more to say."""
        said, self.closed, self._reader = self.closed, True, None
        wire = b"" if said else frames.close_frame(int.from_bytes(payload[:2]))
        return Close(wire, at_once=True)

    def _text(self, payload: bytes) -> Iterator[Action]:
        try:
            envelope = _decode(payload)
        except msgspec.ValidationError as error:
            yield self._error(BadRequest(str(error)), _id_of(payload))
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            request_id = _id_of(payload)
            reason = str(error)[:200] if request_id == NULL else ALMOST_JSON
            yield self._error(BadRequest(f"not valid JSON: {reason}"), request_id)
            return
        request_id = NULL if envelope.id is None else _encode(envelope.id)
        if self.claims is None:
            yield from self._first(envelope, request_id)
            return
        command = BY_NAME.get(envelope.type)
        if command is None or command.anonymous:
            yield self._not_a_command(envelope.type, request_id)
        elif self.in_flight >= MAX_IN_FLIGHT:
            limited = RateLimited(
                f"at most {MAX_IN_FLIGHT} commands may wait for their answers on one connection",
                retry_after_ms=RETRY_AFTER_MS,
            )
            yield self._error(limited, request_id)
        else:
            self.in_flight += 1
            yield Ask(command, request_id, bytes(envelope.data))

    def _first(self, envelope: Envelope, request_id: bytes) -> Iterator[Action]:
        token = ""
        if envelope.type == "auth":
            try:
                token = _decode_auth(envelope.data).token
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                token = ""
        yield from self.log_in(token, request_id)

    def _not_a_command(self, name: str, request_id: bytes) -> Write:
        if name == "ping":
            return Write(text_frame(ack_message(request_id, b"{}")))
        if name == "auth":
            return self._error(BadRequest("this connection is logged in already"), request_id)
        command = BY_NAME.get(name)
        if command is not None:
            return self._error(
                BadRequest(f"{command.type} is served over HTTP only", field="type"), request_id
            )
        return self._error(BadRequest(f"unknown type {name[:64]!r}", field="type"), request_id)

    def _error(self, error: AppError, request_id: bytes) -> Write:
        body = error.body(f"{getrandbits(128):032x}")
        return Write(text_frame(error_message(request_id, body)))


def _id_of(payload: bytes) -> bytes:
    """The id in a frame that is not understood: without it the client would take the error for silence, and repeat."""
    try:
        found = json.loads(payload)  # which takes half of a cut emoji, as JavaScript writes it
        return _encode(msgspec.convert(found.get("id"), RequestId))
    except (AttributeError, ValueError, RecursionError):
        return NULL
