"""Which first bytes of a connection are understood without aiohttp."""

import asyncio
from unittest.mock import Mock

import pytest

from edge import door
from edge.door import MAX_HANDSHAKE, Door, Handshake, read_handshake

HEADERS = b"Host: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a=:b\r\n"


def request(line: bytes = b"GET /ws HTTP/1.1", headers: bytes = HEADERS) -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


def test_a_plain_handshake() -> None:
    assert read_handshake(
        request(b"GET /ws?token=a.b-c_d HTTP/1.1") + b"\x81\x80more"
    ) == Handshake(
        "a.b-c_d",
        {"host": "x", "upgrade": "websocket", "sec-websocket-key": "a=:b"},
        b"\x81\x80more",
    )
    without_token = read_handshake(request())
    assert without_token is not None
    assert (without_token.token, without_token.rest) == ("", b"")


@pytest.mark.parametrize(
    "data",
    [
        request()[:-2],
        request(b"GET /ws HTTP/1.0"),
        request(b"POST /ws HTTP/1.1"),
        request(b"GET /wsx HTTP/1.1"),
        request(b"GET /ws?token= HTTP/1.1"),
        request(b"GET /ws?token=a%20b HTTP/1.1"),
        request(b"GET /ws?token=a&x=1 HTTP/1.1"),
        request(b"GET /api/v1/me HTTP/1.1"),
        request(headers=b""),
        request(headers=HEADERS + b"no colon\r\n"),
        request(headers=HEADERS + b"Name : value\r\n"),
        request(headers=HEADERS + b" folded: value\r\n"),
        request(headers=HEADERS + b"HOST: y\r\n"),
        request(headers=HEADERS + b"Nul: \0\r\n"),
        request(headers=HEADERS + b"Bare: a\nb\r\n"),
        request(headers=HEADERS + b"Delete: \x7f\r\n"),
        request(headers=HEADERS + b"Large: " + MAX_HANDSHAKE * b"x" + b"\r\n"),
        request(headers=HEADERS + b"Content-Length: 3\r\n"),
        request(headers=HEADERS + b"transfer-encoding: chunked\r\n"),
        b"\x16\x03\x01 TLS",
    ],
)
def test_anything_else_is_left_to_aiohttp(data: bytes) -> None:
    assert read_handshake(data) is None


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "SILENT_S", 0)
    closed = asyncio.Event()
    silent, talking = Mock(abort=closed.set), Mock()
    for transport in (talking, silent):
        opened = Door(Mock(), Mock())
        opened.connection_made(transport)
        if transport is talking:
            opened.data_received(b"GET / HTTP/1.1\r\n")
    await closed.wait()
    talking.abort.assert_not_called()
