"""A real edge process and what tests say to it: tokens, frames, rubbish."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import jwt

from edge.frames import Message
from laptop.ports import free_ports

SECRET = "0123456789abcdef" * 4
ROOT = Path(__file__).parent.parent


def token(
    user_id: object = 7, *, secret: str = SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    """An access token; `claims` replace the usual ones, None leaves one out."""
    now = int(time.time())
    payload = {"sub": str(user_id), "sid": "s1", "iat": now, "exp": now + 900} | claims
    payload = {k: v for k, v in payload.items() if v is not None}
    return jwt.encode(payload, secret, algorithm)


class EdgeProcess:
    """`python -m edge` on a free port."""

    def __init__(self, nats_url: str, **env: str) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge"],
            cwd=ROOT,
            env=os.environ
            | {
                "IM_NATS_URL": nats_url,
                "IM_EDGE_PORT": str(self.port),
                "IM_JWT_SECRET": SECRET,
            }
            | env,
            stderr=subprocess.PIPE,
        )

    def wait_until_ready(self) -> Self:
        """Returns when /readyz says 200."""
        for _ in range(1000):
            if self.status("/readyz") == 200:
                return self
            assert self.process.poll() is None, self.stderr()
            time.sleep(0.02)
        raise AssertionError("the edge does not get ready")

    def status(self, path: str) -> int:
        """HTTP status of a GET; 0 if nobody listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:  # noqa: S310 our own
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def stderr(self) -> str:
        """All that it wrote, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    async def ended(self) -> int:
        """Waits for its end; its exit status."""
        return await asyncio.to_thread(self.process.wait, 30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


class Client:
    """A WebSocket client that checks what it gets."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.ready: dict[str, Any] = {}

    async def next(self) -> dict[str, Any]:
        """The next frame."""
        message = await self.ws.receive(timeout=20)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return dict(json.loads(message.data))

    async def ask(self, text: str) -> dict[str, Any]:
        """Sends a text and returns the next frame."""
        await self.ws.send_str(text)
        return await self.next()

    async def close_code(self) -> int | None:
        """Waits for the end; its close code."""
        while not self.ws.closed:
            await self.ws.receive(timeout=20)
        return self.ws.close_code

    async def alive(self) -> None:
        """Fails unless the connection still answers."""
        answer = await self.ask('{"type":"ping","id":"alive?"}')
        assert answer == {"type": "ack", "id": "alive?", "data": {}}


@asynccontextmanager
async def connect(
    url: str, access_token: str | None = None, *, ready: bool = True, path: str = "/ws"
) -> AsyncIterator[Client]:
    """A connection, logged in by URL unless `access_token` is ""."""
    access_token = token() if access_token is None else access_token
    if access_token:
        path += f"?token={access_token}"
    async with aiohttp.ClientSession() as http, http.ws_connect(url + path, max_msg_size=0) as ws:
        client = Client(ws)
        if ready:
            frame = await client.next()
            assert frame["type"] == "ready", frame
            client.ready = frame["data"]
        yield client


def handshake(query: str = "") -> bytes:
    """A client's request for a WebSocket."""
    return (
        f"GET /ws{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


class RawSocket:
    """A WebSocket connection whose bytes the test writes itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, access_token: str, behind: bytes = b"", **kwargs: Any) -> Self:
        """Does the handshake, with `behind` in the same packet."""
        raw = cls(*await asyncio.open_connection("127.0.0.1", port, **kwargs))
        raw.send(handshake(f"?token={access_token}" if access_token else "") + behind)
        await raw.shaken()
        return raw

    async def shaken(self) -> None:
        """Reads the answer to `handshake`."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head

    def send(self, data: bytes) -> None:
        """Writes bytes as they are."""
        self.writer.write(data)

    async def next(self) -> Message:
        """The next frame of the server."""
        async with asyncio.timeout(20):
            first, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return Message(first & 0x0F, await self.reader.readexactly(size))

    async def text(self) -> dict[str, Any]:
        """The next frame, which must be text."""
        opcode, payload = await self.next()
        assert opcode == 1, (opcode, payload)
        return dict(json.loads(payload))

    async def close_code(self) -> int:
        """Reads on until the server's close frame; its code."""
        while True:
            opcode, payload = await self.next()
            if opcode == 8:
                return int.from_bytes(payload[:2])

    async def ends(self) -> None:
        """Waits until the server closes the connection."""
        async with asyncio.timeout(20):
            while await self.reader.read(1 << 16):
                pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()


def client_frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's frame, masked with a fixed key."""
    size = len(payload)
    bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([bit | 127]) + size.to_bytes(8)
    if not masked:
        return head + payload
    key = b"\x11\x22\x33\x44"
    return head + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))
