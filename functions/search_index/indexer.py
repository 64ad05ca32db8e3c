"""From facts to the index: which tokens a message has now.

The index only names candidates: who searches compares the message as it is now, so a repeated or late fact never shows
what it should not. Removing a recalled message's tokens is for what they would tell, not for the answers.
"""

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import msgspec

from shared.event_reader import EventReader
from shared.log import Record
from shared.patience import patiently
from shared.reader_progress import Progress
from shared.words import text_of, tokens_of

log = logging.getLogger(__name__)


class Counters(msgspec.Struct):
    """Totals since the start."""

    indexed: int = 0
    unread: int = 0
    """Facts that could not be understood."""
    failures: int = 0


class Entry(NamedTuple):
    """What the index is to hold of a message. `stale`: it may hold something else now."""

    conversation_id: str
    msg_id: int
    tokens: frozenset[bytes]
    stale: bool


class Tokens(Protocol):
    """The index."""

    async def store(self, entries: list[Entry]) -> None:
        """Replaces what it has of these messages, all or nothing. Raises: Unavailable, UnknownOutcome."""


class _Message(msgspec.Struct):
    """The part of `schemas.messages.Message` that matters here."""

    msg_id: str
    conversation_id: str
    msg_type: int
    content: str
    status: int


class _Fact(msgspec.Struct):
    data: _Message


class _Type(msgspec.Struct):
    type: str


_decode = msgspec.json.Decoder(_Fact).decode
_decode_type = msgspec.json.Decoder(_Type).decode
_STALE = {"message.sent": False, "message.edited": True, "message.recalled": True}
"""Facts that change what a message is found by."""


class Indexer(EventReader):
    """The reader of `im.events` that indexes."""

    def __init__(self, progress: Progress, tokens: Tokens) -> None:
        self.counters = Counters()
        super().__init__(progress, self.counters)
        self._tokens = tokens

    async def handle(self, records: list[Record]) -> Mapping[int, int]:
        """See `EventReader.handle`."""
        entries: dict[int, Entry] = {}
        for record in records:
            try:
                entry = entry_of(record.value)
            except (ValueError, RecursionError) as error:
                # `facts` keeps it among the dead letters; here it only means one message less to be found.
                log.warning("fact %d of partition %d: %s", record.offset, record.partition, error)
                self.counters.unread += 1
                continue
            if entry is not None:
                stale = entry.stale or entry.msg_id in entries
                entries[entry.msg_id] = entry._replace(stale=stale)
        if entries:
            await patiently(lambda: self._tokens.store(list(entries.values())), self.counters)
            self.counters.indexed += len(entries)
        return {record.partition: record.offset + 1 for record in records}


def entry_of(fact: bytes) -> Entry | None:
    """What a fact changes in the index; None: nothing. Raises: ValueError."""
    stale = _STALE.get(_decode_type(fact).type)
    if stale is None:
        return None
    message = _decode(fact).data
    text = "" if message.status else text_of(message.msg_type, message.content)
    return Entry(message.conversation_id, int(message.msg_id), frozenset(tokens_of(text)), stale)
