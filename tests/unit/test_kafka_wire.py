"""Our reading of fetch answers against aiokafka's own, on the same bytes."""

import gzip
from io import BytesIO
from struct import pack, pack_into
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.fetch import FetchRequest_v7, FetchResponse_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from shared.adapters.kafka_fetch import TICK_S, SessionFetcher, _Session
from shared.adapters.kafka_wire import Fetched, FetchRequest, decode_answer
from shared.log import Record

TOPIC = "im.requests"
GZIP, APPEND_TIME, CONTROL = 0x01, 0x08, 0x20
HEAD = 61
"""Bytes of a batch before its records."""


def batch(offset: int, values: list[bytes], attributes: int = 0, *, emptied: bool = False) -> bytes:
    """A batch as a broker sends it. emptied: without its records, as compaction may leave it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for i, value in enumerate(values):
        builder.append(i, 1_700_000_000_000 + i, b"p_1_2", value, [("traceparent", b"00")])
    data = builder.build()
    if emptied:
        del data[HEAD:]
        pack_into(">i", data, HEAD - 4, 0)
    elif attributes & GZIP:
        data[HEAD:] = gzip.compress(data[HEAD:])
    pack_into(">qi", data, 0, offset, len(data) - 12)
    pack_into(">h", data, 21, attributes)
    pack_into(">I", data, 17, calc_crc32c(data[21:]))
    return bytes(data)


def old_batch(offset: int, value: bytes) -> bytes:
    """One in the format before that of today."""
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(offset, 1_700_000_000_000, b"p_1_2", value)
    return bytes(builder.build())


def answer(*partitions: tuple[Any, ...], error: int = 0) -> bytes:
    """An answer on the wire. partitions: number, error, and what else is in the schema, from the high water mark on."""
    rest = [("im.events", [(9, 0, 5, 5, 0, None, b"")])]
    return bytes(FetchResponse_v7(0, error, 77, [(TOPIC, list(partitions)), *rest]).encode())


@pytest.mark.parametrize("numbers", [[], [4], [1, 63, 2]])
def test_a_request_is_what_aiokafka_would_send(numbers: list[int]) -> None:
    topics = [(name, [(n, n + 7, -1, 1 << 20) for n in numbers]) for name in ("im.ö", TOPIC)]
    fields: tuple[Any, ...] = (
        -1,
        200,
        1,
        50 << 20,
        1,
        77,
        2**31 - 1,
        topics if numbers else [],
        [],
    )
    assert FetchRequest(*fields).encode() == FetchRequest_v7(*fields).encode()


def test_an_answer_is_what_aiokafka_reads() -> None:
    records = batch(7, [b"a", b"b"])
    data = b"head" + answer((3, 0, 9, 8, 1, None, records), (5, 0, 2**40, 4, 0, [], b""))
    ours = decode_answer(data, 4)
    theirs = FetchResponse_v7.decode(BytesIO(data[4:]))
    assert ours is not None
    assert ours.session == theirs.session_id
    flat = [(topic, p[0], *p[2:4], len(p[6])) for topic, parts in theirs.topics for p in parts]
    assert [(*p[:4], p[4].size_in_bytes()) for p in ours.partitions] == flat
    batches = ours.partitions[0][4]
    assert [r.value for r in Fetched(3, 7, batches).take(9)] == [b"a", b"b"]


@pytest.mark.parametrize(
    "data",
    [
        answer(error=71),
        answer((3, 6, -1, -1, -1, None, b"")),
        answer((3, 0, 9, 9, 0, [(1, 7)], batch(7, [b"a"]))),
        answer((3, 0, 9, 9, 0, None, None)),
        answer((3, 0, 9, 9, 0, None, batch(7, [b"a"])[:-1])),
    ],
    ids=["error", "error of a partition", "aborted", "null", "part of a batch"],
)
def test_what_is_out_of_the_ordinary_is_left_to_aiokafka(data: bytes) -> None:
    assert decode_answer(data, 0) is None


NEW = [
    batch(0, [b"a", b"b", b"c"]),
    batch(3, [pack(">hh", 0, 1)], CONTROL),
    batch(4, [b"d", b"e"], GZIP),
    batch(6, [b"gone"] * 4, emptied=True),
    batch(12, [b"f", b"g"], APPEND_TIME),
    batch(14, [b"last"], CONTROL),
]
OLD = [old_batch(offset, b"%d" % offset) for offset in range(15)]


@pytest.mark.parametrize("log", [NEW, OLD], ids=["new", "old"])
@pytest.mark.parametrize("start", range(16))
@pytest.mark.parametrize("most", [1, 2, 100])
def test_records_are_those_that_aiokafka_unpacks(log: list[bytes], start: int, most: int) -> None:
    data = b"".join(log)
    theirs = PartitionRecords(
        TopicPartition(TOPIC, 3), MemoryRecords(data), [], start, None, None, True, READ_UNCOMMITTED
    )
    ours = Fetched(3, start, MemoryRecords(data))
    records = [ours.take(most)]
    while len(records[-1]) == most:
        assert ours.offset == records[-1][-1].offset + 1
        records.append(ours.take(most))
    expected = [Record(3, r.offset, r.timestamp, r.value) for r in theirs]
    assert [record for some in records for record in some] == expected
    assert ours.offset == theirs.next_fetch_offset == 15


def test_a_damaged_batch_is_noticed() -> None:
    damaged = bytearray(batch(3, [b"c"]))
    damaged[-3] ^= 1
    fetched = Fetched(3, 0, MemoryRecords(batch(0, [b"a", b"b"]) + bytes(damaged)))
    assert [r.value for r in fetched.take(2)] == [b"a", b"b"]
    with pytest.raises(CorruptRecordException, match="partition 3"):
        fetched.take(1)


def test_an_error_takes_nothing_along() -> None:
    """Neither what other partitions brought, nor what stands before it in its own."""

    class State:
        position = 0
        has_valid_position = True

        def consumed_to(self, offset: int) -> None:
            self.position = offset

    good, bad = TopicPartition(TOPIC, 2), TopicPartition(TOPIC, 3)
    states = {good: State(), bad: State()}
    damaged = batch(0, [b"a", b"b"]) + batch(2, [b"c"])[:-3] + b"???"
    fetcher = SessionFetcher.__new__(SessionFetcher)
    fetcher.__dict__.update(
        _assignment=SimpleNamespace(active=True, state_value=states.get),
        _records={
            good: Fetched(2, 0, MemoryRecords(batch(0, [b"other"]))),
            bad: Fetched(3, 0, MemoryRecords(damaged)),
        },
        _wait_consume_future=None,
    )
    assert [r.value for r in fetcher._take(10)[good]] == [b"other"]
    fetcher._records[bad] = Fetched(3, 0, MemoryRecords(damaged))
    with pytest.raises(CorruptRecordException):
        fetcher._take(10)
    assert fetcher._take(10) == {}
    assert not fetcher._records, "so it is fetched again"
    assert [states[good].position, states[bad].position] == [1, 0]


def test_a_pause_ends_though_the_clock_counts_milliseconds() -> None:
    """Else the fetcher turns until the next one begins: on uvloop a timer for a part of one rings at once."""
    fetcher = SessionFetcher.__new__(SessionFetcher)
    now = 100.0
    state = SimpleNamespace(position=7)
    fetcher.__dict__.update(
        _loop=SimpleNamespace(time=lambda: now),
        _fetcher_timeout=0.2,
        _in_flight=set(),
        _records={},
        _fetch_max_wait_ms=200,
        _fetch_min_bytes=1,
        _fetch_max_bytes=1 << 20,
        _isolation_level=READ_UNCOMMITTED,
        _max_partition_fetch_bytes=1 << 20,
    )
    session = _Session({TopicPartition(TOPIC, 3): 5})
    session.answered = list(session.offsets)
    session.pause = 0.0034
    fetcher._sessions = {1: session}
    assignment = SimpleNamespace(state_value=lambda _: state)
    requests, _, timeout, *_ = fetcher._due(assignment)
    assert not requests
    assert timeout == pytest.approx(0.0034)
    now += 0.003
    requests, _, timeout, *_ = fetcher._due(assignment)
    assert [node for node, _ in requests] == [1]
    assert session.offsets == {TopicPartition(TOPIC, 3): 7}
    assert timeout > TICK_S
