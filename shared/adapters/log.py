"""Chooses the log by the scheme of IM_LOG_URL: `kafka://host:port[,…]` or `jetstream://` (on the bus).

aiokafka is imported where Kafka is opened: it is a tenth of what a process needs to start.
"""
# ruff: noqa: PLC0415

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from shared.adapters.log_jetstream import JetStreamWriter, ensure_stream
from shared.adapters.log_jetstream_reader import JetStreamReader
from shared.adapters.nats import NatsBus
from shared.bus import Bus
from shared.log import (
    DEAD,
    EVENTS,
    REQUESTS,
    LogError,
    LogReader,
    LogWriter,
    NotAppendedError,
    Owner,
)
from shared.settings import Settings

TOPICS = (REQUESTS, EVENTS, DEAD)


@asynccontextmanager
async def open_log_writer(settings: Settings, bus: Bus) -> AsyncIterator[LogWriter]:
    """The log, for appending. `bus` carries it where the log is a JetStream.

    Raises: SettingsError; LogError if a topic is missing or has another number of partitions.
    """
    if brokers := _kafka(settings):
        from shared.adapters.log_kafka import KafkaLogWriter

        kafka = KafkaLogWriter(brokers, settings.log_partitions)
        try:
            yield kafka
        finally:
            await kafka.close()
        return
    writer = JetStreamWriter(bus, settings.log_partitions)
    try:
        await writer.check(TOPICS)
        yield writer
    finally:
        writer.close()


@asynccontextmanager
async def open_log_reader(
    settings: Settings, bus: Bus, topic: str, group: str, owner: Owner
) -> AsyncIterator[LogReader]:
    """Reads `topic` as a member of `group`, which shares its partitions; `owner` hears which are its own.

    Raises: SettingsError; LogError if the topic is missing or has another number of partitions.
    """
    reader: LogReader
    if brokers := _kafka(settings):
        from shared.adapters.log_kafka_reader import KafkaLogReader

        reader = kafka = KafkaLogReader(brokers, topic, group, settings.log_partitions, owner)
        await kafka.start()
    else:
        reader = stream = JetStreamReader(bus, topic, group, settings.log_partitions, owner)
        await stream.check()
    try:
        yield reader
    finally:
        await reader.close()


class LateWriter:
    """`shared.log.LogWriter` that opens the log with the first record.

    For functions that are started by a command: most of these append nothing, and their asker waits.
    """

    def __init__(self, open_writer: Callable[[], Awaitable[LogWriter]]) -> None:
        self._open_writer = open_writer
        self._writer: LogWriter | None = None
        self._turn = asyncio.Lock()

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """See `LogWriter.append`."""
        if self._writer is not None:
            return self._writer.append(topic, key, value, trace=trace)

        async def first() -> None:
            await (await self._opened()).append(topic, key, value, trace=trace)

        return asyncio.ensure_future(first())

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See `LogWriter.append_all`."""
        await (await self._opened()).append_all(topic, records)

    async def _opened(self) -> LogWriter:
        async with self._turn:
            if self._writer is None:
                try:
                    self._writer = await self._open_writer()
                except LogError as error:
                    raise NotAppendedError(str(error)) from None
            return self._writer


async def ensure_topics(settings: Settings) -> None:
    """Creates the topics that are missing; existing ones stay as they are.

    Raises: SettingsError; LogError if an existing topic has another number of partitions.
    """
    if brokers := _kafka(settings):
        from shared.adapters import log_kafka

        await log_kafka.ensure_topics(brokers, dict.fromkeys(TOPICS, settings.log_partitions))
        return
    bus = await NatsBus.open(settings.require("nats_url"), "migrations")
    try:
        for topic in TOPICS:
            await ensure_stream(bus, topic, settings.log_partitions)
    finally:
        await bus.close()


def _kafka(settings: Settings) -> str:
    """`host:port[,…]` if the log is on Kafka, otherwise ""."""
    url = settings.require("log_url")
    return url.removeprefix("kafka://").rstrip("/") if url.startswith("kafka://") else ""
