import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import frames
from edge.frames import FrameError, FrameReader, Message
from tests.edge import client_frame

LIMIT = 1000


def read(data: bytes, cuts: list[int] | None = None) -> list[Message]:
    reader = FrameReader(LIMIT)
    bounds = [0, *sorted(c for c in cuts or [] if c < len(data)), len(data)]
    messages: list[Message] = []
    for start, end in itertools.pairwise(bounds):
        messages += reader.feed(data[start:end])
    return messages


@given(st.lists(st.text(max_size=300), max_size=5), st.lists(st.integers(0, 2000), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_messages(texts: list[str], cuts: list[int]) -> None:
    payloads = [t.encode() for t in texts if len(t.encode()) <= LIMIT]
    stream = b"".join(client_frame(frames.TEXT, p) for p in payloads)
    assert read(stream, cuts) == [Message(frames.TEXT, p) for p in payloads]


@given(st.text(max_size=200), st.lists(st.integers(0, 600), max_size=10))
def test_fragments_are_joined_with_pings_between_them(text: str, cuts: list[int]) -> None:
    payload = text.encode()
    bounds = [0, *sorted(c for c in cuts if c < len(payload)), len(payload)]
    parts = [payload[a:b] for a, b in itertools.pairwise(bounds)]
    stream = b""
    for i, part in enumerate(parts):
        stream += client_frame(frames.TEXT if i == 0 else 0, part, fin=i == len(parts) - 1)
        if i < len(parts) - 1:
            stream += client_frame(frames.PING, b"x")
    messages = read(stream)
    assert messages[-1] == Message(frames.TEXT, payload)
    assert messages[:-1] == [Message(frames.PING, b"x")] * (len(parts) - 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(frames.TEXT, b"x" * (LIMIT + 1)), 1009),
        (client_frame(frames.TEXT, b"x" * LIMIT, fin=False) + client_frame(0, b"x"), 1009),
        (b"\x81\xff" + (1 << 62).to_bytes(8), 1009),
        (client_frame(frames.TEXT, b"\xff\xfe"), 1007),
        (client_frame(frames.TEXT, b"\xed\xa0\x80"), 1007),
        (client_frame(frames.TEXT, b"x", masked=False), 1002),
        (client_frame(0, b"x"), 1002),
        (client_frame(frames.TEXT, b"x", fin=False) + client_frame(frames.TEXT, b"x"), 1002),
        (client_frame(frames.PING, b"x" * 126), 1002),
        (client_frame(frames.PING, b"x", fin=False), 1002),
        (client_frame(3, b"x"), 1002),
        (client_frame(11, b"x"), 1002),
        (b"\xc1\x80" + b"\0" * 4, 1002),
        (client_frame(frames.CLOSE, b"x"), 1002),
        (client_frame(frames.CLOSE, (1005).to_bytes(2)), 1002),
        (client_frame(frames.CLOSE, (1000).to_bytes(2) + b"\xff"), 1007),
    ],
)
def test_broken_frames(data: bytes, code: int) -> None:
    reader = FrameReader(LIMIT)
    good = client_frame(frames.TEXT, b"before")
    seen: list[Message] = []
    with pytest.raises(FrameError) as caught:
        seen.extend(reader.feed(good + data))
    assert caught.value.code == code
    assert seen == [Message(frames.TEXT, b"before")]


def test_the_longest_message_passes_also_with_a_ping_inside() -> None:
    first = client_frame(frames.TEXT, b"x" * (LIMIT - 1), fin=False)
    stream = first + client_frame(frames.PING, b"p" * 125) + client_frame(0, b"x")
    assert read(stream)[-1] == Message(frames.TEXT, b"x" * LIMIT)


def test_empty_fragments_cost_no_memory() -> None:
    reader = FrameReader(LIMIT)
    assert not list(reader.feed(client_frame(frames.TEXT, b"", fin=False)))
    for _ in range(10_000):
        assert not list(reader.feed(client_frame(0, b"", fin=False)))
    assert reader._fragments is not None
    assert len(reader._fragments) <= 65


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_server_frames(size: int) -> None:
    wire = frames.text_frame(b"x" * size)
    header = len(wire) - size
    assert wire[0] == 0x81
    assert header == (2 if size < 126 else 4 if size < 65_536 else 10)
    assert (wire[1] if header == 2 else int.from_bytes(wire[2:header])) == size


def test_close_frames() -> None:
    assert frames.close_frame(4401, "why") == b"\x88\x05\x11\x31why"
    assert frames.close_frame(0) == b"\x88\x00"
    assert frames.close_frame(1000, "ä" * 200)[4:].decode() == "ä" * 61
