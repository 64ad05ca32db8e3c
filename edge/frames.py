"""WebSocket frames (RFC 6455), the server's side: building them, and reading a client's bytes into messages.

A server's frames are unmasked, so those with the same content are the same bytes: built once, written to every
socket. Nothing here does I/O.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_FIN = 0x80

GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
INVALID_TEXT = 1007
TOO_LARGE = 1009
SERVICE_RESTART = 1012
UNAUTHENTICATED = 4401
SLOW = 4408
KICKED = 4409

PING_FRAME = bytes((_FIN | PING, 0))

_code = Struct("!H")


def text_frame(payload: bytes) -> bytes:
    """A whole text message in one frame, ready for the wire."""
    return _frame(TEXT, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, with the ping's payload."""
    return _frame(PONG, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """Closes with a code and at most 123 bytes of reason. Code 0 stands for a close without a code."""
    text = reason.encode()[:123].decode(errors="ignore")  # no half a character
    return _frame(CLOSE, _code.pack(code) + text.encode() if code else b"")


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (_FIN | opcode, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (_FIN | opcode, size.to_bytes(2), payload)
    return b"%c\x7f%b%b" % (_FIN | opcode, size.to_bytes(8), payload)


class FrameError(Exception):
    """The client broke the protocol; the connection is closed with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Message(NamedTuple):
    """A complete message. Text is valid UTF-8, but still bytes. A close's payload is checked."""

    opcode: int
    payload: bytes


class FrameReader:
    """Cuts a client's byte stream into messages. After a FrameError it must not be fed again."""

    __slots__ = ("_fragments", "_max_size", "_opcode", "_rest", "_size")

    def __init__(self, max_size: int) -> None:
        """`max_size`: longest message in bytes, fragments together."""
        self._max_size = max_size
        self._rest = b""
        self._fragments: list[bytes] | None = None
        self._opcode = _CONTINUATION
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yields the messages that are complete now. Exhaust it before the next call.

        Raises: FrameError, after the messages before the faulty one.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        start, end = 0, len(data)
        while end - start >= 2:
            first, size = data[start], data[start + 1] & 0x7F
            self._check(first, data[start + 1])
            at = start + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if end - at < width:
                    break
                size = int.from_bytes(data[at : at + width])
                at += width
            if first & 0x0F < CLOSE and self._size + size > self._max_size:
                raise FrameError(TOO_LARGE, f"messages have at most {self._max_size} bytes")
            start_of_next = at + 4 + size
            if start_of_next > end:
                break
            payload = _unmask(data[at : at + 4], data[at + 4 : start_of_next])
            start = start_of_next
            message = self._take(first & 0x0F, bool(first & _FIN), payload)
            if message is not None:
                yield message
        self._rest = data[start:]

    def _check(self, first: int, second: int) -> None:
        """Checks what the two first bytes of a frame say."""
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "reserved bits are set")
        if not second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "a client must mask its frames")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(PROTOCOL_ERROR, "unknown opcode")
            if not first & _FIN or second & 0x7F > 125:
                raise FrameError(PROTOCOL_ERROR, "control frames are short and whole")
        elif opcode > BINARY:
            raise FrameError(PROTOCOL_ERROR, "unknown opcode")
        elif (opcode == _CONTINUATION) is (self._fragments is None):
            raise FrameError(PROTOCOL_ERROR, "fragments are out of order")

    def _take(self, opcode: int, final: bool, payload: bytes) -> Message | None:
        """One frame; the message that it completes, if it does."""
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
            return Message(opcode, payload)
        if self._fragments is not None:
            self._fragments.append(payload)
            self._size += len(payload)
            if not final:
                self._compact()
                return None
            opcode, payload = self._opcode, b"".join(self._fragments)
            self._fragments, self._size = None, 0
        elif not final:
            self._opcode, self._fragments, self._size = opcode, [payload], len(payload)
            return None
        if opcode == TEXT:
            _check_utf8(payload)
        return Message(opcode, payload)

    def _compact(self) -> None:
        """Keeps the number of fragments small: empty ones would cost memory without end."""
        if self._fragments is not None and len(self._fragments) > 64:
            self._fragments = [b"".join(self._fragments)]


def _unmask(mask: bytes, payload: bytes) -> bytes:
    size = len(payload)
    key = (mask * ((size >> 2) + 1))[:size]
    # One XOR of two long integers: ten times faster than a loop over the bytes.
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(
        size, "little"
    )


def _check_utf8(payload: bytes) -> None:
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(INVALID_TEXT, "text must be UTF-8") from None


def _check_close(payload: bytes) -> None:
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "close code is cut off")
    if payload:
        code = _code.unpack_from(payload)[0]
        if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
            raise FrameError(PROTOCOL_ERROR, "close code is not allowed")
        _check_utf8(payload[2:])
