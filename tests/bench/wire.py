"""A client's end of the WebSocket, for load: it cuts frames out of the stream and leaves them unparsed.

The mask of all frames is zero: the server's work is the same, ours is less.
"""

import asyncio
import errno
import hmac
import os
import socket
import time
from base64 import b64encode, urlsafe_b64encode
from time import perf_counter
from typing import cast

from tests.bench.talk import Job, Result

_TEXT, _CLOSE, _PING = 0x1, 0x8, 0x9
_IP_BIND_ADDRESS_NO_PORT = 24  # of Linux; Python names it from 3.12 on
_NO_MASK = bytes(4)
_HANDSHAKE = (
    b"GET /ws?token=%b HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b64encode(bytes(16)) + b"\r\n\r\n"
)
_TOKEN_HEADER = urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}')
_READY = b'{"type":"ready"'
_USERS_OF_A_SOURCE = 10_000
OPEN_S = 30.0
TOKEN_S = 900


def text_frame(payload: bytes) -> bytes:
    """A client's frame."""
    return _frame(_TEXT, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return b"%c%c%b%b" % (0x80 | opcode, 0x80 | size, _NO_MASK, payload)
    return b"%c\xfe%b%b%b" % (0x80 | opcode, size.to_bytes(2), _NO_MASK, payload)


def number_after(data: bytes, name: bytes, start: int, stop: int) -> int:
    """The integer behind `name` (written as `b'"seq":'`), -1 if it is not there."""
    at = data.find(name, start, stop)
    if at < 0:
        return -1
    at += len(name)
    end = at
    while data[end] in b"0123456789":
        end += 1
    return int(data[at:end])


class Connection(asyncio.Protocol):
    """One connection. Subclasses take what arrives in `text`, and may write in `batch_ended`.

    now: `perf_counter` when the bytes came that are being worked on. live: `ready` was said. lost: closed by the other.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.closed_by_us = False
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._request = b""
        self._rest = b""
        self._shaken = False
        self.live = False
        self._opened: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None

    async def open(self, job: Job, user_id: int) -> float:
        """Connects and returns, with the seconds that it took, when the server has said `ready`.

        Raises: OSError, TimeoutError.
        """
        loop = asyncio.get_running_loop()
        self._request = _HANDSHAKE % (_token(job.secret, user_id), job.host.encode())
        self._rest = b""
        self._shaken = self.live = self.closed_by_us = self.lost = False
        self._opened = loop.create_future()
        started = perf_counter()
        timer = loop.call_later(OPEN_S, self._fail, TimeoutError("no `ready` in time"))
        sock = _connecting(job, user_id)
        try:
            await loop.create_connection(lambda: self, sock=sock)
            await self._opened
        except BaseException:
            if self._transport is not None:
                self._transport.abort()  # the socket is its own
            else:
                sock.close()
            raise
        finally:
            timer.cancel()
            self._opened = None
        return perf_counter() - started

    def write(self, wire: bytes) -> None:
        """Writes finished frames; on a lost connection, nothing."""
        if self._transport is not None:
            self._transport.write(wire)

    async def drop(self) -> None:
        """Breaks the connection, as a machine does that goes away; returns when it may be opened again."""
        self.closed_by_us = True
        if self._transport is not None:
            self._gone = asyncio.get_running_loop().create_future()
            self._transport.abort()
            await self._gone
            self._gone = None

    def text(self, data: bytes, start: int, stop: int) -> None:
        """A text frame: `data[start:stop]`."""

    def batch_ended(self) -> None:
        """All frames that came together have gone through `text`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self.live = False
        self.lost = not self.closed_by_us
        if self._gone is not None:
            self._gone.set_result(None)
        self._fail(OSError(f"the server closed the connection: {error}"))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.now = perf_counter()
        if self._rest:
            data = self._rest + data
        at = 0 if self._shaken else self._shake_hands(data)
        if not self._shaken:
            self._rest = data
            return
        end = len(data)
        while end - at >= 2:
            size = data[at + 1]
            start = at + 2
            if size == 126:
                start = at + 4
                size = int.from_bytes(data[at + 2 : start])
            elif size == 127:
                start = at + 10
                size = int.from_bytes(data[at + 2 : start])
            stop = start + size
            if stop > end or start > end:
                break
            opcode = data[at] & 0x0F
            if opcode == _TEXT:
                if self.live:
                    self.text(data, start, stop)
                elif data.startswith(_READY, start):
                    self._become_live()
            elif opcode == _PING:
                self.write(_frame(0xA, data[start:stop]))
            elif opcode == _CLOSE:
                self.write(_frame(_CLOSE, data[start : start + 2]))
            at = stop
        self._rest = data[at:]
        self.batch_ended()

    def _become_live(self) -> None:
        self.live = True
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    def _shake_hands(self, data: bytes) -> int:
        """Where the first frame starts."""
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return 0
        self._shaken = True
        if not data.startswith(b"HTTP/1.1 101 "):
            self._fail(OSError(f"no WebSocket: {data[:80]!r}"))
        return head + 4

    def _fail(self, error: OSError) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)


def _token(secret: str, user_id: int) -> bytes:
    """An access token (JWT, HS256); PyJWT takes a multiple of the time for it."""
    now = int(time.time())
    claims = b'{"sub":"%d","sid":"bench","iat":%d,"exp":%d}' % (user_id, now, now + TOKEN_S)
    signed = _TOKEN_HEADER + b"." + urlsafe_b64encode(claims).rstrip(b"=")
    digest = hmac.digest(secret.encode(), signed, "sha256")
    return signed + b"." + urlsafe_b64encode(digest).rstrip(b"=")


def _connecting(job: Job, user_id: int) -> socket.socket:
    """A socket on its way to the server: its transport can write at once, and hears if it is refused.

    From an address of ours that only so many users share, and whose port the kernel picks when it knows the other end:
    it tries half of the 28,000 ports first, and needs a millisecond to find that all of those are taken.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{2 + user_id // _USERS_OF_A_SOURCE}", 0))
    status = sock.connect_ex((job.host, job.port))
    if status not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(status, os.strerror(status))
    return sock


def count_error(result: Result, data: bytes, start: int, stop: int) -> None:
    """Notes an `error` frame by its code."""
    at = data.find(b'"code":"', start, stop) + 8
    code = data[at : data.find(b'"', at, stop)]
    result.problem(f"error {code.decode()}")
