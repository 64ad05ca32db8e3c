"""Chooses the log by the scheme of IM_LOG_URL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from shared.adapters.log_jetstream import JetStreamReader, JetStreamWriter, ensure_stream
from shared.adapters.nats import NatsBus
from shared.bus import Bus
from shared.log import DEAD, REQUESTS, LogReader, LogWriter, Owner
from shared.settings import Settings, SettingsError

TOPICS = (REQUESTS, DEAD)


@asynccontextmanager
async def open_log_writer(settings: Settings, bus: Bus) -> AsyncIterator[LogWriter]:
    """The log, for appending. `bus` carries it where the log is a JetStream.

    Raises: SettingsError; LogError if a topic is missing or has another number of partitions.
    """
    _require_jetstream(settings)
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
    _require_jetstream(settings)
    reader = JetStreamReader(bus, topic, group, settings.log_partitions, owner)
    try:
        await reader.check()
        yield reader
    finally:
        await reader.close()


async def ensure_topics(settings: Settings) -> None:
    """Creates the topics that are missing; existing ones stay as they are.

    Raises: SettingsError; LogError if an existing topic has another number of partitions.
    """
    _require_jetstream(settings)
    bus = await NatsBus.open(settings.require("nats_url"), "migrations")
    try:
        for topic in TOPICS:
            await ensure_stream(bus, topic, settings.log_partitions)
    finally:
        await bus.close()


def _require_jetstream(settings: Settings) -> None:
    scheme = urlsplit(settings.require("log_url")).scheme
    if scheme != "jetstream":
        raise SettingsError(f"IM_LOG_URL: {scheme}:// is not a log that this version reads; take jetstream://")
