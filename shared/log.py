"""The port to the log: the truth from which everything else follows.

`shared.adapters.log_jetstream` and `log_kafka` implement it, `memory_log` for tests. A topic has a fixed
number of partitions; a record's partition follows from its key (its conversation), so that one owner sees all
records of a conversation, in order.
"""

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from shared.settings import SettingsError

REQUESTS = "im.requests"
"""Checked commands, keyed by conversation: read by the timeline."""
EVENTS = "im.events"
"""Facts, after apply, keyed by conversation: read by search, push, web-hooks."""
DEAD = "im.dead"
"""Records that could not be applied, with the reason."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One committed record. `offset` grows within a partition (with holes); `ms` is the log's own append time."""

    partition: int
    offset: int
    ms: int
    value: bytes


class NotAppendedError(Exception):
    """The record is surely not in the log and never will be."""


class LogError(SettingsError):
    """The log is not as this process needs it (no such topic, another number of partitions); one line says what."""


class LogWriter(Protocol):
    """Appends."""

    def append(
        self, topic: str, key: str, value: bytes, *, trace: str = ""
    ) -> "asyncio.Future[None]":
        """Adds a record; appends of one turn of the loop travel together. `trace`: its header `traceparent`, if any.

        The future resolves when the record is committed on all in-sync replicas, and fails with NotAppendedError if it
        surely is not. If nobody can know, it fails with `shared.errors.UnknownOutcome`.
        """

    async def append_all(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        """Adds many (key, value) in order and returns when all are committed.

        Raises: as `append` fails. Then some are there and others are not, but of each key never one without those
        before it; so who repeats the whole call appends nothing out of order, only twice. One call at a time.
        """


class Owner(Protocol):
    """Hears which partitions are its own."""

    async def assigned(self, partitions: frozenset[int]) -> Mapping[int, int]:
        """Called before the first record of new partitions; returns the offset to start from for each.

        0 is the oldest record that the log still has.
        """

    async def revoked(self, partitions: frozenset[int]) -> None:
        """Called before another owner may start: finish and store what was read of these."""


class LogReader(Protocol):
    """Reads the partitions that this process owns, in order within each."""

    async def read(self, most: int) -> list[Record]:
        """Waits for at least one record and returns what is there, at most `most`.

        Also returns (maybe empty) after about a second, and at once when closed. Records are taken from the buffer
        in the same turn of the loop in which this returns, so that a `seek` either sees them or discards them.
        """

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Goes on reading these partitions, if they are still its own, from these offsets. What is buffered of them is
        discarded; it happens at once, so that no record of the old position is read after the caller's state is new.
        """

    @property
    def lag(self) -> int:
        """Records in the log that `read` has not returned yet, as far as known."""

    async def stored(self, offsets: Mapping[int, int]) -> None:
        """Says that all records before these offsets are stored; for the lag that monitoring and scaling see."""

    async def close(self) -> None:
        """Gives the partitions up (calls `Owner.revoked`) and leaves, so that another owner takes over at once."""


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key: CRC-32 of its UTF-8, modulo the number of partitions, which therefore never changes."""
    return zlib.crc32(key.encode()) % partitions
