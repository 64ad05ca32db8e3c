"""One suite for every log: what the timeline and the functions rely on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.fetch import FetchRequest_v7
from aiokafka.protocol.produce import ProduceRequest_v7

from shared.adapters import kafka_fetch
from shared.adapters.kafka_produce import Producer
from shared.adapters.log_jetstream import JetStreamWriter, ensure_stream
from shared.adapters.log_jetstream_reader import JetStreamReader
from shared.adapters.log_kafka import (
    KafkaLogWriter,
    bootstrap_of,
    ensure_topics,
)
from shared.adapters.log_kafka_reader import KafkaLogReader, fixed_assignor
from shared.adapters.memory_log import MemoryLog
from shared.adapters.nats import NatsBus
from shared.errors import UnknownOutcome
from shared.log import LogError, LogReader, LogWriter, NotAppendedError, Record, partition_of
from tests.servers import KafkaServer, NatsServer
from tests.support import until

PARTITIONS = 4


@dataclass
class Keeper:
    """An owner that starts where it is told."""

    starts: dict[int, int] = field(default_factory=dict)
    held: frozenset[int] = frozenset()

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        self.held |= partitions
        return {p: self.starts.get(p, 0) for p in partitions}

    async def revoked(self, partitions: frozenset[int]) -> None:
        self.held -= partitions


@dataclass
class Log:
    """A log under test: its writer, and a way to open a reader."""

    writer: LogWriter
    reader: Callable[[Keeper], AbstractAsyncContextManager[LogReader]]


class Closable(Protocol):
    """A reader, or a writer."""

    async def close(self) -> None:
        """Ends."""


C = TypeVar("C", bound=Closable)


@asynccontextmanager
async def closed_after(opened: C) -> AsyncIterator[C]:
    """Closes it whatever the block does: one that a failed test left open would fail another test."""
    try:
        yield opened
    finally:
        await opened.close()


_topics = iter(f"im.contract{n}" for n in range(1_000))


@pytest.fixture(params=["memory", "jetstream", "kafka"])
async def topic_and_log(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Log]]:
    topic = next(_topics)
    if request.param == "memory":
        memory = MemoryLog(PARTITIONS)

        @asynccontextmanager
        async def open_memory(owner: Keeper) -> AsyncIterator[LogReader]:
            async with closed_after(memory.reader(topic, owner)) as reader:
                yield reader

        yield topic, Log(memory, open_memory)
        return
    if request.param == "kafka":
        kafka: KafkaServer = request.getfixturevalue("kafka_server")
        async with kafka_log(kafka, topic) as log:
            yield topic, log
        return
    server: NatsServer = request.getfixturevalue("nats_server")
    bus = await NatsBus.open(server.url, "test")
    await ensure_stream(bus, topic, PARTITIONS)

    @asynccontextmanager
    async def open_jetstream(owner: Keeper) -> AsyncIterator[LogReader]:
        reader = JetStreamReader(bus, topic, "test", PARTITIONS, owner)
        await reader.check()
        async with closed_after(reader):
            yield reader

    writer = JetStreamWriter(bus, PARTITIONS)
    yield topic, Log(writer, open_jetstream)
    writer.close()
    await bus.close()


@asynccontextmanager
async def kafka_log(server: KafkaServer, topic: str) -> AsyncIterator[Log]:
    """A new topic on Kafka."""
    brokers = bootstrap_of(server.url)
    await ensure_topics(brokers, {topic: PARTITIONS})

    @asynccontextmanager
    async def open_reader(owner: Keeper) -> AsyncIterator[LogReader]:
        reader = KafkaLogReader(brokers, topic, f"group-{topic}", PARTITIONS, owner)
        await reader.start()
        async with closed_after(reader):
            yield reader

    async with closed_after(KafkaLogWriter(brokers, PARTITIONS)) as writer:
        yield Log(writer, open_reader)


async def take(reader: LogReader, count: int) -> list[Record]:
    """Reads until `count` records are there."""
    records: list[Record] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            records += await reader.read(count - len(records))
    return records


def by_partition(records: list[Record]) -> dict[int, list[bytes]]:
    """Values in order, by partition."""
    sorted_out: dict[int, list[bytes]] = {}
    for record in records:
        sorted_out.setdefault(record.partition, []).append(record.value)
    return sorted_out


async def fill(log: Log, topic: str, count: int, name: str = "v") -> dict[int, list[bytes]]:
    """Appends `count` records at once; returns what a reader must see."""
    expected: dict[int, list[bytes]] = {}
    appends = []
    for i in range(count):
        key, value = f"p_1_{i % 17}", f"{name}{i}".encode()
        expected.setdefault(partition_of(key, PARTITIONS), []).append(value)
        appends.append(log.writer.append(topic, key, value))
    await asyncio.gather(*appends)
    return expected


async def test_reads_what_was_appended_in_order_within_each_partition(
    topic_and_log: tuple[str, Log],
) -> None:
    topic, log = topic_and_log
    before = await fill(log, topic, 1_500, "a")
    async with log.reader(Keeper()) as reader:
        assert by_partition(await take(reader, 1_500)) == before
        after = await fill(log, topic, 1_500, "b")
        records = await take(reader, 1_500)
        assert by_partition(records) == after
        assert reader.lag == 0
    assert all(record.ms > 1_700_000_000_000 for record in records)


async def test_offsets_grow_within_a_partition_and_are_where_to_go_on(
    topic_and_log: tuple[str, Log],
) -> None:
    topic, log = topic_and_log
    await fill(log, topic, 200)
    async with log.reader(Keeper()) as reader:
        records = await take(reader, 200)
    starts: dict[int, int] = {}
    for record in records[:90]:
        assert record.offset >= starts.get(record.partition, 0)
        starts[record.partition] = record.offset + 1
    owner = Keeper(starts)
    async with log.reader(owner) as reader:
        assert by_partition(await take(reader, 110)) == by_partition(records[90:])


async def test_an_idle_partition_holds_nobody_back(topic_and_log: tuple[str, Log]) -> None:
    topic, log = topic_and_log
    for i in range(50):
        await log.writer.append(topic, "p_1_2", b"%d" % i)
    mine = partition_of("p_1_2", PARTITIONS)
    async with log.reader(Keeper()) as reader:
        last = (await take(reader, 50))[-1]
    async with log.reader(Keeper({mine: last.offset + 1})) as reader:
        await log.writer.append(topic, "p_1_2", b"new")
        assert [r.value for r in await take(reader, 1)] == [b"new"]


async def test_seek_repeats_one_partition_and_no_other(topic_and_log: tuple[str, Log]) -> None:
    topic, log = topic_and_log
    expected = await fill(log, topic, 300)
    async with log.reader(Keeper()) as reader:
        read = await take(reader, 120)
        again = read[0].partition
        reader.seek({again: read[0].offset})
        count = 300 - 120 + len(by_partition(read)[again])
        rest = by_partition(await take(reader, count))
    assert rest[again] == expected[again]
    for partition in set(expected) - {again}:
        assert (
            by_partition(read).get(partition, []) + rest.get(partition, []) == expected[partition]
        )


async def test_a_reader_hears_of_its_partitions_and_gives_them_up(
    topic_and_log: tuple[str, Log],
) -> None:
    topic, log = topic_and_log
    await fill(log, topic, 1)
    owner = Keeper()
    async with log.reader(owner) as reader:
        await take(reader, 1)
        assert owner.held == frozenset(range(PARTITIONS))
    assert not owner.held


async def test_read_returns_without_records_when_closed(topic_and_log: tuple[str, Log]) -> None:
    _, log = topic_and_log
    async with log.reader(Keeper()) as reader:
        reading = asyncio.create_task(reader.read(10))
        await asyncio.sleep(0)
        await reader.close()
        assert await reading == []


async def test_many_at_once_keep_their_order(topic_and_log: tuple[str, Log]) -> None:
    topic, log = topic_and_log
    records = [(f"p_1_{i % 17}", f"{i}".encode()) for i in range(1_500)]
    expected: dict[int, list[bytes]] = {}
    for key, value in records:
        expected.setdefault(partition_of(key, PARTITIONS), []).append(value)
    await log.writer.append_all(topic, [])
    await log.writer.append_all(topic, records[:1_000])
    await log.writer.append_all(topic, records[1_000:])
    async with log.reader(Keeper()) as reader:
        assert by_partition(await take(reader, 1_500)) == expected


def firsts(values: list[bytes]) -> list[bytes]:
    """Without repeats of what came before."""
    return list(dict.fromkeys(values))


async def append_through(
    log: Log, topic: str, records: list[tuple[str, bytes]], kill: Callable[[], None]
) -> None:
    """Appends all, each hundred again until it is confirmed, while the server is killed in the middle."""
    for i in range(0, len(records), 100):
        if i == 500:
            asyncio.get_running_loop().call_soon(kill)
        async with asyncio.timeout(60):
            while True:
                try:
                    await log.writer.append_all(topic, records[i : i + 100])
                    break
                except (NotAppendedError, UnknownOutcome):
                    await asyncio.sleep(0.05)


class TestJetStream:
    """What only a real server does."""

    async def test_a_killed_server_loses_and_repeats_nothing(self, nats_server: NatsServer) -> None:
        topic = next(_topics)
        bus = await NatsBus.open(nats_server.url, "test")
        await ensure_stream(bus, topic, PARTITIONS)
        writer = JetStreamWriter(bus, PARTITIONS)
        reader = JetStreamReader(bus, topic, "test", PARTITIONS, Keeper())
        log = Log(writer, lambda _: pytest.fail("not used"))
        before = await fill(log, topic, 700, "before")
        first = await take(reader, 500)
        again = asyncio.Event()
        bus.on_reconnect(again.set)
        nats_server.kill()
        nats_server.start()
        rest = await take(reader, 200)
        await again.wait()
        after = await fill(log, topic, 700, "after")
        assert by_partition(await take(reader, 700)) == after
        values = [record.value for record in first + rest]
        assert sorted(values) == sorted(value for part in before.values() for value in part)
        await reader.close()
        writer.close()
        await bus.close()

    async def test_a_broken_row_of_appends_leaves_no_hole(self, nats_server: NatsServer) -> None:
        topic = next(_topics)
        bus = await NatsBus.open(nats_server.url, "test")
        await ensure_stream(bus, topic, 1)
        writer = JetStreamWriter(bus, 1)
        log = Log(writer, lambda _: pytest.fail("not used"))
        records = [("p_1_2", b"%d" % i) for i in range(1_000)]

        def kill() -> None:
            nats_server.kill()
            nats_server.start()

        await append_through(log, topic, records, kill)
        # A record that gets lost takes along those behind it.
        genuine, lost = bus.send, iter(range(3))

        def lossy(subject: str, payload: bytes, *others: Any, **options: Any) -> None:
            if payload != b"lost" or next(lost, None) is None:
                genuine(subject, payload, *others, **options)

        bus.send = lossy  # type: ignore[method-assign]
        row = [("p_1_2", value) for value in (b"before", b"lost", b"behind", b"last")]
        for _ in range(3):
            with pytest.raises(NotAppendedError, match="last msg ID"):
                await writer.append_all(topic, row)
        await writer.append_all(topic, row)
        reader = JetStreamReader(bus, topic, "test", 1, Keeper())
        values: list[bytes] = []
        while b"last" not in values:
            values += [record.value for record in await take(reader, 1)]
        assert firsts(values) == [value for _, value in records + row]
        await reader.close()
        writer.close()
        await bus.close()

    async def test_closed_while_it_takes_its_partitions_it_reads_nothing(
        self, nats_server: NatsServer
    ) -> None:
        """A process that is told to stop while it starts: it must not wait for answers that nobody hears any more."""
        topic = next(_topics)
        bus = await NatsBus.open(nats_server.url, "test")
        await ensure_stream(bus, topic, PARTITIONS)

        class Closing(Keeper):
            async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
                await reader.close()
                return await super().assigned(partitions)

        reader = JetStreamReader(bus, topic, "test", PARTITIONS, Closing())
        async with asyncio.timeout(10):
            assert await reader.read(10) == []
        await bus.close()

    async def test_says_that_nothing_was_appended_only_when_that_is_sure(
        self, nats_server: NatsServer
    ) -> None:
        bus = await NatsBus.open(nats_server.url, "test")
        writer = JetStreamWriter(bus, PARTITIONS)
        with pytest.raises(NotAppendedError, match="no stream"):
            await writer.append("im.nowhere", "p_1_2", b"x")
        nats_server.stop()
        while bus.connected:
            await asyncio.sleep(0.01)
        with pytest.raises(NotAppendedError):
            await writer.append("im.requests", "p_1_2", b"x")
        nats_server.start()
        writer.close()
        await bus.close()

    async def test_the_number_of_partitions_never_changes(self, nats_server: NatsServer) -> None:
        topic = next(_topics)
        bus = await NatsBus.open(nats_server.url, "test")
        writer = JetStreamWriter(bus, PARTITIONS)
        with pytest.raises(LogError, match="migrations"):
            await writer.check([topic])
        await ensure_stream(bus, topic, PARTITIONS)
        await ensure_stream(bus, topic, PARTITIONS)
        with pytest.raises(LogError, match="IM_LOG_PARTITIONS is 5"):
            await ensure_stream(bus, topic, 5)
        with pytest.raises(LogError, match="IM_LOG_PARTITIONS is 5"):
            await JetStreamReader(bus, topic, "test", 5, Keeper()).check()
        writer.close()
        await bus.close()

    async def test_goes_on_when_the_stream_lost_its_end(self, nats_server: NatsServer) -> None:
        topic = next(_topics)
        bus = await NatsBus.open(nats_server.url, "test")
        await ensure_stream(bus, topic, 1)
        writer = JetStreamWriter(bus, 1)
        await writer.append(topic, "p_1_2", b"old")
        reader = JetStreamReader(bus, topic, "test", 1, Keeper({0: 1_000}))
        assert await reader.read(1) == []
        await writer.append(topic, "p_1_2", b"new")
        assert [r.value for r in await take(reader, 1)] == [b"new"]
        await reader.close()
        writer.close()
        await bus.close()


def producing(log: Log) -> tuple[KafkaLogWriter, Producer]:
    """A writer that has appended, and what it does that with."""
    assert isinstance(log.writer, KafkaLogWriter)
    assert log.writer._producer is not None
    return log.writer, log.writer._producer


async def put_out_of_step(log: Log, topic: str) -> KafkaLogWriter:
    """Has appended to the partition of p_1_2, whose next batch the broker refuses."""
    await log.writer.append(topic, "p_1_2", b"first")
    writer, producer = producing(log)
    producer._numbers = dict.fromkeys(producer._numbers, 1_000)
    return writer


class TestKafka:
    """What only a real broker does."""

    async def test_a_killed_broker_loses_nothing_that_was_confirmed(
        self, kafka_server: KafkaServer
    ) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            before = await fill(log, topic, 700, "before")
            kafka_server.kill()
            with pytest.raises((NotAppendedError, UnknownOutcome)):
                await log.writer.append(topic, "p_1_2", b"while away")
            kafka_server.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await log.writer.append(topic, "p_1_2", b"again")
                        break
                    except (NotAppendedError, UnknownOutcome):
                        continue
            # What nobody could know may have come after all; it stands behind what was confirmed.
            read: dict[int, list[bytes]] = {}
            missing = {value for values in before.values() for value in values} | {b"again"}
            while missing:
                for partition, values in by_partition(await take(reader, 1)).items():
                    read.setdefault(partition, []).extend(values)
                    missing.difference_update(values)
            assert {p: values[: len(before[p])] for p, values in read.items()} == before

    async def test_a_batch_whose_answer_was_lost_is_there_once(
        self, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            await log.writer.append(topic, "p_1_2", b"first")
            send, lost = AIOKafkaClient.send, iter(range(2))

            async def lossy(self: AIOKafkaClient, node: int, request: Any, **options: Any) -> Any:
                answer = await send(self, node, request, **options)
                if request.API_KEY == ProduceRequest_v7.API_KEY and next(lost, None) is not None:
                    raise RequestTimedOutError
                return answer

            monkeypatch.setattr(AIOKafkaClient, "send", lossy)
            await log.writer.append(topic, "p_1_2", b"second")
            assert next(lost, None) is None
            await log.writer.append(topic, "p_1_2", b"third")
            assert [r.value for r in await take(reader, 3)] == [b"first", b"second", b"third"]

    @pytest.mark.parametrize("before", [None, 20], ids=["at once", "after too few replicas"])
    async def test_a_refusal_is_sure_only_of_the_first_try(
        self, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch, before: int | None
    ) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log:
            await log.writer.append(topic, "p_1_2", b"first")
            _, producer = producing(log)
            partition = partition_of("p_1_2", PARTITIONS)
            codes = iter([code for code in (before, 29) if code is not None])

            async def refuse(*_: Any, **__: Any) -> dict[int, int]:
                return {partition: next(codes)}

            monkeypatch.setattr(producer._client, "send", refuse)
            with pytest.raises(NotAppendedError if before is None else UnknownOutcome):
                await log.writer.append(topic, "p_1_2", b"refused")

    async def test_a_producer_that_is_out_of_step_is_replaced(
        self, kafka_server: KafkaServer
    ) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            await put_out_of_step(log, topic)
            with pytest.raises(UnknownOutcome):
                await log.writer.append(topic, "p_1_2", b"out of step")
            await log.writer.append(topic, "p_1_2", b"again")
            assert [r.value for r in await take(reader, 2)] == [b"first", b"again"]

    async def test_what_failed_with_the_batch_before_is_not_sent_as_an_empty_one(
        self, kafka_server: KafkaServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            writer = await put_out_of_step(log, topic)
            with pytest.raises(UnknownOutcome):
                await writer.append_all(topic, [("p_1_2", b"x" * (200 << 10))] * 5)
            await until(lambda: not any(x.busy or x.waiting for x in writer._lanes.values()))
            await writer.append(topic, "p_1_2", b"again")
            assert caplog.text.count("the producer is replaced") == 1
            assert [r.value for r in await take(reader, 2)] == [b"first", b"again"]

    async def test_a_replaced_producer_holds_no_partition(
        self, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its batches end though it waits for what never comes."""
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            await log.writer.append(topic, "p_1_2", b"first")
            writer, producer = producing(log)
            tried, never = asyncio.Event(), asyncio.get_running_loop().create_future()

            async def away(*_: Any, **__: Any) -> Any:
                raise RequestTimedOutError

            def no_metadata() -> "asyncio.Future[None]":
                tried.set()
                return never

            monkeypatch.setattr(producer._client, "send", away)
            monkeypatch.setattr(producer._client, "force_metadata_update", no_metadata)
            lost = log.writer.append(topic, "p_1_2", b"lost")
            await tried.wait()
            writer._replace(producer, RequestTimedOutError())
            with pytest.raises(UnknownOutcome):
                await lost
            async with asyncio.timeout(10):
                while True:  # until the partition is free
                    try:
                        await log.writer.append(topic, "p_1_2", b"second")
                        break
                    except NotAppendedError:
                        continue
            assert [r.value for r in await take(reader, 2)] == [b"first", b"second"]

    async def test_a_fetch_names_only_partitions_that_moved_on(
        self, kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And where the broker does not know the session any more, the next one begins with all of them."""
        asked: list[FetchRequest_v7] = []
        build = kafka_fetch._Fetch.build

        def spy(self: kafka_fetch._Fetch, struct: type[FetchRequest_v7]) -> FetchRequest_v7:
            request = build(self, struct)
            if broken:
                request.session_epoch = 1_000
            asked.append(request)
            return request

        def named(request: FetchRequest_v7) -> int:
            return sum(len(partitions) for _, partitions in request.topics)

        monkeypatch.setattr(kafka_fetch._Fetch, "build", spy)
        broken = False
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            first = await fill(log, topic, 100, "first")
            assert by_partition(await take(reader, 100)) == first
            for n in range(20):
                await log.writer.append(topic, "p_1_2", b"%d" % n)
                assert [r.value for r in await take(reader, 1)] == [b"%d" % n]
            assert [named(request) for request in asked[-15:]] == [1] * 15
            broken = True
            await log.writer.append(topic, "p_1_2", b"unseen")
            async with asyncio.timeout(30):
                while not any(r.session_epoch == 1_000 for r in asked):
                    await reader.read(1)
            broken = False
            asked.clear()
            after = await fill(log, topic, 100, "after")
            seen = {v for values in after.values() for v in values}
            while seen:
                seen -= {r.value for r in await take(reader, 1)}
            assert max(map(named, asked)) == PARTITIONS
            # The first request of the new session may have brought all of these.
            await log.writer.append(topic, "p_1_2", b"next")
            assert [r.value for r in await take(reader, 1)] == [b"next"]
            assert asked[-1].session_epoch > 0

    async def test_a_broken_row_of_appends_leaves_no_hole(self, kafka_server: KafkaServer) -> None:
        topic = next(_topics)
        records = [(f"p_1_{i % 17}", b"%d" % i) for i in range(1_000)]

        def kill() -> None:
            kafka_server.kill()
            kafka_server.start()

        async with kafka_log(kafka_server, topic) as log, log.reader(Keeper()) as reader:
            await append_through(log, topic, records, kill)
            expected: dict[int, list[bytes]] = {}
            for key, value in records:
                expected.setdefault(partition_of(key, PARTITIONS), []).append(value)
            read: dict[int, list[bytes]] = {p: [] for p in expected}
            while any(expected[p][-1] not in values for p, values in read.items()):
                for partition, values in by_partition(await take(reader, 1)).items():
                    read[partition] += values
            assert {p: firsts(values) for p, values in read.items()} == expected

    async def test_partitions_are_shared_and_handed_over(self, kafka_server: KafkaServer) -> None:
        topic = next(_topics)
        async with kafka_log(kafka_server, topic) as log:
            everything = await fill(log, topic, 400)
            first, second = Keeper(), Keeper()
            async with log.reader(first) as one:
                read = await take(one, 400)
                assert by_partition(read) == everything
                for record in read:
                    second.starts[record.partition] = record.offset + 1
                    first.starts[record.partition] = record.offset + 1
                async with log.reader(second) as two:
                    async with asyncio.timeout(30):
                        while not (first.held and second.held):
                            await asyncio.gather(one.read(10), two.read(10))
                    assert first.held | second.held == frozenset(range(PARTITIONS))
                    assert not first.held & second.held
                async with asyncio.timeout(30):
                    while first.held != frozenset(range(PARTITIONS)):
                        await one.read(10)

    def test_a_leader_that_knows_nothing_of_the_topic_divides_it_all_the_same(self) -> None:
        """Seen after a broker was killed under load: everybody got nothing, and nobody read the log any more."""
        assignor = fixed_assignor("im.requests", 8)
        metadata = assignor.metadata(["im.requests"])
        assigned = assignor.assign(ClusterMetadata(), dict.fromkeys(("a", "b", "c"), metadata))
        shares = [tp.partition for member in assigned.values() for tp in member.partitions()]
        assert sorted(shares) == list(range(8))
        assert {len(member.partitions()) for member in assigned.values()} == {2, 3}

    async def test_the_number_of_partitions_never_changes(self, kafka_server: KafkaServer) -> None:
        topic, brokers = next(_topics), bootstrap_of(kafka_server.url)
        await ensure_topics(brokers, {topic: PARTITIONS})
        await ensure_topics(brokers, {topic: PARTITIONS})
        with pytest.raises(LogError, match="must never change"):
            await ensure_topics(brokers, {topic: PARTITIONS + 1})
        writer = KafkaLogWriter(brokers, PARTITIONS + 1)
        with pytest.raises(NotAppendedError, match="partitions"):
            await writer.append(topic, "p_1_2", b"x")
        await writer.close()

    async def test_says_that_nothing_was_appended_only_when_that_is_sure(
        self, kafka_server: KafkaServer
    ) -> None:
        async with kafka_log(kafka_server, next(_topics)) as log:
            with pytest.raises(NotAppendedError):
                await log.writer.append("im.nowhere", "p_1_2", b"x")
            with pytest.raises(NotAppendedError, match="too large"):
                await log.writer.append("im.requests", "p_1_2", b"x" * 2_000_000)
        away = KafkaLogWriter("127.0.0.1:1", PARTITIONS)
        with pytest.raises(NotAppendedError):
            await away.append("im.requests", "p_1_2", b"x")
        await away.close()
