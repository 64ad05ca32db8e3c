"""The lean parser reads what nats-py's own reads, in whatever pieces it comes."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from shared.adapters.nats_parser import LeanParser
from shared.bus import OnMessage

OURS = 7
"""Odd subscriptions are ours, even ones nats-py's."""


class FakeClient:
    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []

    def listener_of(self, sid: int) -> OnMessage | None:
        if sid % 2 == 0:
            return None
        return lambda subject, reply, payload, headers: self.got.append(
            (sid, subject, reply, payload, headers)
        )

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.got.append((sid, subject.decode(), reply.decode(), data, headers or b""))

    async def _process_ping(self) -> None:
        self.got.append(("PING",))

    async def _process_pong(self) -> None:
        self.got.append(("PONG",))

    async def _process_err(self, text: str) -> None:
        self.got.append(("ERR", text))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.got.append(("INFO", info))


names = st.from_regex(r"\A[a-zA-Z0-9_-]{1,8}(\.[a-zA-Z0-9_-]{1,8}){0,3}\Z")


@st.composite
def wire(draw: st.DrawFn) -> bytes:
    subject, sid = draw(names).encode(), draw(st.integers(1, 99))
    reply = draw(st.one_of(st.just(b""), names.map(lambda n: n.encode() + b" ")))
    payload = draw(st.binary(max_size=60))
    kind = draw(
        st.sampled_from(
            ["msg", "hmsg", "PING", "PONG", "+OK", "-ERR 'slow consumer'", 'INFO {"a":1}']
        )
    )
    if kind == "msg":
        return b"MSG %b %d %b%d\r\n%b\r\n" % (subject, sid, reply, len(payload), payload)
    if kind == "hmsg":
        head = b"NATS/1.0\r\nIm-Conn: c1\r\n\r\n"
        sizes = (len(head), len(head) + len(payload))
        return b"HMSG %b %d %b%d %d\r\n%b%b\r\n" % (subject, sid, reply, *sizes, head, payload)
    return kind.encode() + b"\r\n"


async def read(parser: type[Parser], pieces: list[bytes]) -> list[tuple[Any, ...]]:
    client = FakeClient()
    reading = parser(client)
    for piece in pieces:
        await reading.parse(piece)
    return client.got


@given(st.lists(wire(), max_size=12), st.lists(st.integers(0, 2000), max_size=12))
def test_it_reads_what_nats_py_reads(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    places = sorted({0, len(stream), *(c % (len(stream) + 1) for c in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    ours = asyncio.run(read(LeanParser, pieces))
    assert ours == asyncio.run(read(Parser, [stream]))
    assert len(ours) == sum(not m.startswith(b"+OK") for m in messages)


@pytest.mark.parametrize(
    "rubbish",
    [b"MSG a b c\r\nx\r\n", b"MSG\r\n", b"HMSG a 1 x 5\r\nhello\r\n", b"WHAT\r\n", b"M" * 20_000],
)
async def test_rubbish_is_a_protocol_error(rubbish: bytes) -> None:
    with pytest.raises(ProtocolError):
        await read(LeanParser, [rubbish])


async def test_a_listener_that_fails_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = FakeClient()

    def fail(*_: object) -> None:
        raise ValueError("broken listener")

    client.listener_of = lambda _sid: fail  # type: ignore[method-assign,assignment]
    await LeanParser(client).parse(b"MSG a 1 1\r\nx\r\nPING\r\n")
    assert client.got == [("PING",)]
    assert "broken listener" in caplog.text


async def test_a_new_connection_begins_with_a_new_line() -> None:
    client = FakeClient()
    parser = LeanParser(client)
    await parser.parse(b"MSG a 7 10\r\nhal")
    parser.reset()
    await parser.parse(b"MSG b 7 1\r\nx\r\n")
    assert client.got == [(OURS, "b", "", b"x", b"")]
