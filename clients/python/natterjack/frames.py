"""The WebSocket frames of the client protocol: `{"type", "id", "data"}` as JSON text.

Kept apart from any I/O, so that a load generator can speak the protocol without the rest of the client.
"""

from typing import TypeVar

import msgspec

from clients.python.natterjack.errors import ApiError, ErrorFields, TooLarge
from schemas.commands import COMMANDS, Command
from schemas.types import Model

MAX_FRAME = 64 * 1024
"""Largest frame in bytes that the server takes; a larger one makes it close the connection with 1009."""

CLOSE_UNAUTHENTICATED = 4401
CLOSE_SESSION_ENDED = 4409

COMMAND_OF: dict[type[Model], Command] = {command.request: command for command in COMMANDS}
"""The command of a request Struct."""

Reply = TypeVar("Reply", bound=Model)

_NOTHING = msgspec.Raw(b"{}")


class Frame(ErrorFields):
    """Any frame from the server: a push (no id), an `ack` (`data`) or an `error` (its fields beside `type`)."""

    type: str = ""
    id: int | str | None = None
    data: msgspec.Raw = _NOTHING


class _Outgoing(msgspec.Struct, omit_defaults=True):
    type: str
    data: Model
    id: int | None = None


class Auth(Model):
    """First frame of a connection whose URL has no token."""

    token: str


_decoder = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()


def encode(request: Model, request_id: int) -> bytes:
    """The frame of a command. Raises: TooLarge if the server would not take it."""
    frame = _encoder.encode(_Outgoing(COMMAND_OF[type(request)].type, request, request_id))
    if len(frame) > MAX_FRAME:
        # Sent all the same, it would cost the connection, and again after every reconnect.
        raise TooLarge("too_large", f"a frame of {len(frame)} bytes; at most {MAX_FRAME} are taken")
    return frame


def encode_auth(token: str) -> bytes:
    """The first frame of a connection."""
    return _encoder.encode(_Outgoing("auth", Auth(token)))


def decode(payload: bytes) -> Frame:
    """Raises: msgspec.DecodeError if it is no frame."""
    return _decoder.decode(payload)


def decode_reply(data: bytes | msgspec.Raw, reply: type[Reply]) -> Reply:
    """The body of a success. Raises: ApiError(`internal`) if it is not what the contract says."""
    try:
        return msgspec.json.decode(data, type=reply)
    except msgspec.DecodeError as error:
        raise ApiError(
            "internal", f"the server's {reply.__name__} is malformed: {error}"
        ) from error
