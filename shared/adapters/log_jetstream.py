"""The log on NATS JetStream: for the laptop, where one process owns all partitions.

A topic `im.requests` is the stream IM_REQUESTS with one subject per partition, `im.log.requests.<partition>`. The
offset of a record is its sequence in the stream, so offsets of one partition have holes. The stream does not divide
its partitions among several readers: run one timeline per stream (a second one does no harm, since the timeline
commits by compare-and-set, but no good either).

What survives: a kill of any process, since the server writes each record to its file before it confirms. A power cut
may take the last two minutes unless the server runs with `sync_interval: always`. Records are kept for `KEPT_S`.
"""

import asyncio
from collections.abc import Iterable, Sequence

from shared import subjects
from shared.adapters.jetstream import (
    STREAM_NOT_FOUND,
    JetStreamError,
    call,
    patiently_call,
    publish,
)
from shared.bus import Bus, Inbox, pack_headers
from shared.errors import Unavailable
from shared.ids import random_token
from shared.log import LogError, NotAppendedError, partition_of

KEPT_S = 7 * 24 * 3600
PARTITIONS_KEY = "natterjack-partitions"
"""Entry of a stream's metadata: the number of partitions it was made with, which must never change."""
EXPECTED = "Nats-Expected-Last-Msg-Id"


def stream_of(topic: str) -> str:
    """`im.requests` → `IM_REQUESTS`."""
    return topic.replace(".", "_").upper()


def subject_prefix(topic: str) -> str:
    """`im.requests` → `im.log.requests.`, which the number of the partition follows."""
    return f"im.log.{topic.removeprefix('im.')}."


async def ensure_stream(bus: Bus, topic: str, partitions: int) -> None:
    """Creates the stream of a topic, or checks the one that is there.

    Raises: LogError if it has another number of partitions.
    """
    inbox = Inbox(bus, subjects.FUNCTION_INBOX)
    try:
        await check_partitions(inbox, topic, partitions)
    except _MissingError:
        config = {
            "name": stream_of(topic),
            "subjects": [f"{subject_prefix(topic)}*"],
            "retention": "limits",
            "storage": "file",
            "max_age": KEPT_S * 1_000_000_000,
            "num_replicas": 1,
            # Ids of records chain them (`append_all`) and are never repeated: the server need not remember them.
            "duplicate_window": 1_000_000_000,
            "metadata": {PARTITIONS_KEY: str(partitions)},
        }
        await call(inbox, f"STREAM.CREATE.{stream_of(topic)}", config)
    finally:
        inbox.close()


class JetStreamWriter:
    """`shared.log.LogWriter` on JetStream."""

    def __init__(self, bus: Bus, partitions: int) -> None:
        self._bus = bus
        self._inbox = Inbox(bus, subjects.FUNCTION_INBOX)
        self._partitions = partitions

    async def check(self, topics: Iterable[str]) -> None:
        """Waits for the server and checks the streams. Raises: LogError."""
        for topic in topics:
            await check_partitions(self._inbox, topic, self._partitions)

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """See `LogWriter.append`."""
        headers = pack_headers({"traceparent": trace}) if trace else b""
        return publish(self._inbox, self._subject(topic, key), value, headers)

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """See `LogWriter.append_all`. Each record but the first is refused unless the one before it is the stream's
        last, so that the last one's confirmation stands for all.
        """
        token = random_token()
        before = ""
        last = len(records) - 1
        for i, (key, value) in enumerate(records):
            headers = pack_headers(
                {"Nats-Msg-Id": f"{token}.{i}"} | ({EXPECTED: before} if i else {})
            )
            before = f"{token}.{i}"
            subject = self._subject(topic, key)
            if i == last:
                await publish(self._inbox, subject, value, headers)
                return
            try:
                self._bus.send(subject, value, headers=headers)
            except (Unavailable, ValueError) as error:
                raise NotAppendedError(str(error)) from error

    def _subject(self, topic: str, key: str) -> str:
        return subject_prefix(topic) + str(partition_of(key, self._partitions))

    def close(self) -> None:
        """Ends; appends that are not confirmed yet fail with UnknownOutcome."""
        self._inbox.close()


class _MissingError(LogError):
    """There is no such stream."""


async def check_partitions(inbox: Inbox, topic: str, partitions: int) -> None:
    """Waits for the server and checks a topic's stream. Raises: LogError."""
    try:
        info = await patiently_call(inbox, f"STREAM.INFO.{stream_of(topic)}")
    except JetStreamError as error:
        if error.code != STREAM_NOT_FOUND:
            raise
        raise _MissingError(
            f"the stream {stream_of(topic)} is missing; `python -m migrations` makes it"
        ) from None
    there = info.config.get("metadata", {}).get(PARTITIONS_KEY)
    if there != str(partitions):
        raise LogError(
            f"IM_LOG_PARTITIONS is {partitions}, but {stream_of(topic)} was made with {there}, which never changes"
        )
