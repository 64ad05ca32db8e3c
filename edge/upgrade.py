"""The WebSocket handshake: the request is read; from here on the transport is `edge.socket`'s."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping

from aiohttp import web

from edge.socket import Common, Socket
from shared.errors import BadRequest

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _HandedOver(web.StreamResponse):
    """What a handler returns when there is nothing left for aiohttp to answer: to it, the client is gone."""

    async def prepare(self, _request: web.BaseRequest) -> None:
        raise ConnectionResetError


class _Rest:
    """Takes what a hasty client sent behind its upgrade request, in the place of aiohttp's own parser."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Hears from aiohttp that it has let go."""


def open_socket(
    transport: asyncio.Transport, headers: Mapping[str, str], common: Common, token: str
) -> Socket:
    """Answers the handshake and starts a Socket on the connection. `headers` are asked for in lower case.

    Raises: BadRequest, before anything is done, if it is no WebSocket handshake.
    """
    accept = _accept(headers)
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    socket = Socket(common, transport)
    transport.set_protocol(socket)
    socket.start(token)
    return socket


def upgrade(request: web.Request, common: Common, token: str) -> web.StreamResponse:
    """`open_socket` on a connection of aiohttp's, which forgets it, without closing what is no longer its own."""
    transport, protocol = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError
    socket = open_socket(transport, request.headers, common, token)
    rest = _Rest()
    protocol.set_parser(rest)  # type: ignore[arg-type]
    protocol.transport = None
    protocol.connection_lost(None)
    if rest.data:
        socket.data_received(rest.data)
    return _HandedOver()


def _accept(headers: Mapping[str, str]) -> bytes:
    if "websocket" not in _words(headers.get("upgrade", "")) or "upgrade" not in _words(
        headers.get("connection", "")
    ):
        raise BadRequest("this address speaks WebSocket: an upgrade is required")
    if headers.get("sec-websocket-version") != "13":
        raise BadRequest("Sec-WebSocket-Version must be 13", field="Sec-WebSocket-Version")
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64", field="Sec-WebSocket-Key")
    return base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest())  # noqa: S324 RFC 6455 says so


def _words(value: str) -> list[str]:
    return [word.strip().lower() for word in value.split(",")]
