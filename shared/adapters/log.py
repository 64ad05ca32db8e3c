"""Chooses the log by the scheme of IM_LOG_URL: `kafka://host:port[,…]` or `jetstream://` (on the bus)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.adapters import log_kafka
from shared.adapters.log_jetstream import JetStreamWriter, ensure_stream
from shared.adapters.log_jetstream_reader import JetStreamReader
from shared.adapters.log_kafka import KafkaLogWriter
from shared.adapters.log_kafka_reader import KafkaLogReader
from shared.adapters.nats import NatsBus
from shared.bus import Bus
from shared.log import DEAD, EVENTS, REQUESTS, LogReader, LogWriter, Owner
from shared.settings import Settings

TOPICS = (REQUESTS, EVENTS, DEAD)


@asynccontextmanager
async def open_log_writer(settings: Settings, bus: Bus) -> AsyncIterator[LogWriter]:
    """The log, for appending. `bus` carries it where the log is a JetStream.

    Raises: SettingsError; LogError if a topic is missing or has another number of partitions.
    """
    if brokers := _kafka(settings):
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
    reader: KafkaLogReader | JetStreamReader
    if brokers := _kafka(settings):
        reader = KafkaLogReader(brokers, topic, group, settings.log_partitions, owner)
        await reader.start()
    else:
        reader = JetStreamReader(bus, topic, group, settings.log_partitions, owner)
        await reader.check()
    try:
        yield reader
    finally:
        await reader.close()


async def ensure_topics(settings: Settings) -> None:
    """Creates the topics that are missing; existing ones stay as they are.

    Raises: SettingsError; LogError if an existing topic has another number of partitions.
    """
    if brokers := _kafka(settings):
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
    return log_kafka.bootstrap_of(url) if url.startswith("kafka://") else ""
