"""The front door of a worker: a usual WebSocket handshake is answered right here, all else is aiohttp's.

A request with its route, its middlewares and its task costs a third of a whole connect. So a connection that begins
with a handshake in one piece never meets aiohttp. Whatever else comes first goes to aiohttp untouched: other requests,
handshakes in other forms, and those that must be refused, with the reason as JSON.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from edge.socket import Socket
from shared.errors import AppError

Headers = Mapping[str, str]
"""By name in lower case."""
OpenSocket = Callable[[asyncio.Transport, Headers, str], Socket]
"""Called with a token, or "" if it is not in the URL; raises AppError if there can be no socket."""

MAX_HANDSHAKE = 8 << 10
"""Bytes; aiohttp's own limits judge what is longer."""
SILENT_S = 20.0
"""How long a connection may say nothing at all: those that never speak would use up the files of the process."""

_HANDSHAKE = re.compile(
    rb"GET /ws(?:\?token=([\w.~-]+))? HTTP/1\.1\r\n"
    rb"((?:[!-9;-~]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
_BODY = ("content-length", "transfer-encoding")


class Handshake(NamedTuple):
    """What the client said. rest: bytes behind it, of a client that does not wait for the answer."""

    token: str
    headers: Headers
    rest: bytes


def read_handshake(data: bytes) -> Handshake | None:
    """The first bytes of a connection, if aiohttp is not needed to understand them."""
    match = _HANDSHAKE.match(data, 0, MAX_HANDSHAKE)
    if match is None:
        return None
    token, block = match.groups(b"")
    lines = block.decode("latin-1").split("\r\n")[:-1]
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if len(headers) < len(lines) or any(name in headers for name in _BODY):
        return None
    return Handshake(token.decode(), headers, data[match.end() :])


class Door(asyncio.Protocol):
    """A connection until its first bytes come."""

    __slots__ = ("_http", "_open_socket", "_patience", "_transport")

    def __init__(self, open_socket: OpenSocket, http: Callable[[], asyncio.Protocol]) -> None:
        """`http` makes aiohttp's protocol for one connection."""
        self._open_socket = open_socket
        self._http = http

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._patience = asyncio.get_running_loop().call_later(SILENT_S, self._transport.abort)

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.Protocol. It has said nothing."""
        self._patience.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. Called once: the transport is somebody else's then."""
        self._patience.cancel()
        handshake = read_handshake(data)
        if handshake is None or not self._opened(handshake):
            http = self._http()
            self._transport.set_protocol(http)
            http.connection_made(self._transport)
            http.data_received(data)

    def _opened(self, handshake: Handshake) -> bool:
        try:
            socket = self._open_socket(self._transport, handshake.headers, handshake.token)
        except AppError:
            return False
        if handshake.rest:
            socket.data_received(handshake.rest)
        return True
