"""Reading from Kafka in fetch sessions: what others than our writer put there, and what happens in the middle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OffsetOutOfRangeError

from shared.adapters import kafka_fetch
from shared.adapters.kafka_fetch import SessionFetcher
from shared.adapters.log_kafka import bootstrap_of
from shared.adapters.log_kafka_reader import KafkaLogReader
from shared.log import Record, partition_of
from tests.contract.test_log import PARTITIONS, Keeper, by_partition, fill, kafka_log, take
from tests.servers import KafkaServer

_topics = iter(f"im.reading{n}" for n in range(1_000))
MINE = partition_of("p_1_2", PARTITIONS)


def fetcher_of(reader: Any) -> SessionFetcher:
    assert isinstance(reader, KafkaLogReader)
    fetcher = reader._consumer._fetcher
    assert isinstance(fetcher, SessionFetcher)
    return fetcher


@asynccontextmanager
async def transactions(server: KafkaServer) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_of(server.url), transactional_id="t", compression_type="gzip"
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def test_compressed_and_control_batches_stay_within_the_session(
    kafka_server: KafkaServer,
) -> None:
    topic = next(_topics)
    async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
        await log.writer.append(topic, "p_1_2", b"first")
        assert [r.value for r in await take(reader, 1)] == [b"first"]
        sessions = dict(fetcher_of(reader)._sessions)
        async with transactions(kafka_server) as producer:
            for n in range(3):
                async with producer.transaction():
                    for value in (b"%d a" % n, b"%d b" % n):
                        await producer.send(topic, value, partition=MINE)
        values = [r.value for r in await take(reader, 6)]
        assert values == [b"0 a", b"0 b", b"1 a", b"1 b", b"2 a", b"2 b"]
        async with asyncio.timeout(30):
            while reader.lag:  # the last one is a mark that no reader sees
                assert await reader.read(10) == []
        await log.writer.append(topic, "p_1_2", b"last")
        assert [r.value for r in await take(reader, 1)] == [b"last"]
        assert sessions
        assert fetcher_of(reader)._sessions == sessions


@pytest.mark.parametrize("back", [0, 3])
async def test_a_seek_while_an_answer_is_under_way_discards_it(
    kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch, back: int
) -> None:
    topic = next(_topics)
    async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
        for n in range(5):
            await log.writer.append(topic, "p_1_2", b"%d" % n)
        read = await take(reader, 5)
        decode = kafka_fetch._Fetch.decode
        sought = 0

        def seek_too(self: kafka_fetch._Fetch, data: BytesIO) -> Any:
            nonlocal sought
            response = decode(self, data)
            if self.answer and any(batches.has_next() for *_, batches in self.answer.partitions):
                if not sought:
                    reader.seek({MINE: read[back].offset})
                sought += 1
            return response

        monkeypatch.setattr(kafka_fetch._Fetch, "decode", seek_too)
        other = next(k for i in range(99) if partition_of(k := f"p_1_{i}", PARTITIONS) != MINE)
        await log.writer.append_all(topic, [("p_1_2", b"5"), (other, b"elsewhere")])
        values = by_partition(await take(reader, 7 - back))
        assert values.pop(MINE) == [b"%d" % n for n in range(back, 6)]
        assert list(values.values()) == [[b"elsewhere"]]
        assert sought


async def test_a_seek_discards_what_is_buffered(kafka_server: KafkaServer) -> None:
    topic = next(_topics)
    async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
        await log.writer.append_all(topic, [("p_1_2", b"%d" % n) for n in range(10)])
        first, *_ = await take(reader, 4)
        reader.seek({MINE: first.offset + 1})
        assert [r.value for r in await take(reader, 9)] == [b"%d" % n for n in range(1, 10)]
        assert reader.lag == 0


async def test_an_offset_that_the_log_does_not_have_is_an_error(kafka_server: KafkaServer) -> None:
    """And takes nothing from the partitions that came in the same answer, which is left to aiokafka."""
    topic = next(_topics)
    async with kafka_log(kafka_server, topic) as log:
        expected = await fill(log, topic, 100)
        missing = 100 - len(expected.pop(MINE))
        records: list[Record] = []
        errors = 0
        async with log.reader(Keeper({MINE: 10_000})) as reader, asyncio.timeout(30):
            while not errors or len(records) < missing:
                try:
                    records += await reader.read(7)
                except OffsetOutOfRangeError:
                    errors += 1
        assert by_partition(records) == expected
