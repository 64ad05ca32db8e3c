"""What the timeline's rules work on: the state of a partition, the record, and what it became."""

from typing import Any, NamedTuple

import msgspec

from schemas.errors import ErrorCode
from schemas.messages import Message
from schemas.records import AnyRequest, SendRequested, SystemRequested
from shared.ids import EPOCH_MS, Private
from shared.log import Record

Row = tuple[Any, ...]


class Progress(msgspec.Struct, frozen=True, gc=False):
    """How far a partition is applied: next offset, and time and counter of the newest Snowflake."""

    next: int = 0
    last_ms: int = EPOCH_MS
    counter: int = 0


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What an idempotence key got. `offset`: of the record that made it, -1 if it was loaded from SQL."""

    digest: bytes
    msg_id: int
    seq: int
    offset: int = -1


class Conversation(msgspec.Struct, gc=False):
    """Newest numbers of a conversation.

    month: of its newest message, 0 if it has none. message_rev: `rev` of the newest change of a message, while max_rev
    counts reads too. members_version: of a group's members, as of its newest system message. max_uuid: no message of it
    has a UUIDv7 above this as its client_msg_id (ADR 19). border: up to this message there is something that a member
    does not see, since it is older than his membership. offset: as in Answer.
    """

    max_seq: int = 0
    max_rev: int = 0
    month: int = 0
    message_rev: int = 0
    members_version: int = 0
    max_uuid: str = ""
    border: int = 0
    offset: int = -1

    def row(
        self, conversation_id: str, rev: int, message_rev: int, changed_ms: int
    ) -> "ConversationRow":
        """As it is after a change without a new message."""
        return ConversationRow(
            conversation_id,
            self.max_seq,
            rev,
            changed_ms,
            message_rev,
            self.members_version,
            self.max_uuid,
            self.max_seq,
        )


class Reactor(NamedTuple):
    """Who has reacted with what."""

    emoji: str
    user_id: int


class Post(msgspec.Struct, frozen=True):
    """A message that a record refers to, as it is now. `reactors`: in the order in which they reacted. `offset`: as in
    Answer.
    """

    message: Message
    reactors: tuple[Reactor, ...] = ()
    offset: int = -1


class Position(msgspec.Struct, gc=False):
    """How far a member has read a conversation and has it on a device. `left`: he is none any more. `offset`: as in
    Answer.
    """

    read_seq: int = 0
    read_rev: int = 0
    delivered_seq: int = 0
    offset: int = -1
    left: bool = False


Place = tuple[int, str]
"""User and conversation."""


class State:
    """One partition as of `progress`; holds only what was loaded or made, the rest is in SQL.

    accepted: messages by id that were made here; posts: those that records have referred to, whichever they are.
    """

    __slots__ = (
        "accepted",
        "answers",
        "conversations",
        "partition",
        "positions",
        "posts",
        "progress",
    )

    def __init__(self, partition: int, progress: Progress) -> None:
        self.partition = partition
        self.progress = progress
        self.conversations: dict[str, Conversation] = {}
        self.answers: dict[bytes, Answer] = {}
        self.accepted: dict[int, Accepted] = {}
        self.posts: dict[int, Post] = {}
        self.positions: dict[Place, Position] = {}


class Entry(msgspec.Struct, frozen=True):
    """A record, decoded. `request` None: it cannot be applied, `fault` says why.

    members: None in groups. key, digest: of a message to be sent. uuid: its client_msg_id if that is a UUIDv7. post: id
    of the message that it refers to, 0: none.
    """

    record: Record
    request: AnyRequest | None
    members: Private | None = None
    key: bytes = b""
    digest: bytes = b""
    uuid: str = ""
    post: int = 0
    fault: str = ""


class ConversationRow(NamedTuple):
    """Columns of `conversation`, in order."""

    conversation_id: str
    max_seq: int
    max_rev: int
    changed_ms: int
    message_rev: int
    members_version: int
    max_uuid: str
    max_uuid_seq: int


class Accepted(msgspec.Struct, frozen=True):
    """A new message. `row`: columns of `message_<month>` in order. `opens_month`: the conversation's first in it.

    head: its conversation with it. ack: goes out at once after a send, and after the COMMIT of a change of a group,
    whose borders must stand by then.
    """

    request: SendRequested | SystemRequested
    members: Private | None
    seq: int
    head: ConversationRow
    month: int
    opens_month: bool
    offset: int
    row: Row
    key_row: tuple[bytes, bytes, int, int]
    ack: bytes
    message: bytes


class Write(NamedTuple):
    """A row to be there (`row`: its columns in order), or None: all rows whose key begins so are to go."""

    table: str
    key: Row
    row: Row | None


class Changed(msgspec.Struct, frozen=True):
    """A message is different now.

    rev, before: `rev` of this change and of the newest one of a message before it. kind: what facts call it.
    message: its JSON as it is now. head, row: as in Accepted. frame: the push, b"" if not all members may have it. Its
    ack goes out after the COMMIT: a crash must not take an acked change back until the log is read again, and who reads
    SQL sees it.
    """

    request: AnyRequest
    members: Private | None
    kind: str
    msg_id: int
    seq: int
    rev: int
    before: int
    head: ConversationRow
    month: int
    row: Row
    writes: tuple[Write, ...]
    message: bytes
    frame: bytes
    ack: bytes


class Moved(msgspec.Struct, frozen=True):
    """A member has read further, or has more on a device. `row`: first columns of `user_conversation`.

    head: in private conversations reads have a `rev`; then the conversation changes. read: else delivered.
    """

    request: AnyRequest
    members: Private | None
    read: bool
    head: ConversationRow | None
    row: Row
    frame: bytes
    ack: bytes


class Unchanged(msgspec.Struct, frozen=True):
    """It is so already. The ack goes out after the COMMIT, since what made it so may not be stored yet."""

    request: AnyRequest
    ack: bytes


class Repeated(msgspec.Struct, frozen=True):
    """The same request again: it gets its first answer once more, and nothing else happens."""

    request: SendRequested
    ack: bytes


class Refused(msgspec.Struct, frozen=True):
    """It may not be; nothing happens."""

    request: AnyRequest
    code: ErrorCode
    message: str
    field: str | None = None


class Dead(msgspec.Struct, frozen=True):
    """A record that cannot be applied; it goes to the dead letters."""

    record: Record
    reason: str
    request: AnyRequest | None = None


Effect = Accepted | Changed | Moved | Unchanged | Repeated | Refused | Dead


class NotLoadedError(Exception):
    """`apply` was called without its conversation: a defect of the caller, and nothing was changed."""
