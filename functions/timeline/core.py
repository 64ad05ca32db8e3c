"""The timeline's rules: what a record of the log becomes, decided by the log and by what was decided before.

Pure: no clock, no I/O, no randomness. `apply` changes the state it is given in place; everything else it wants is data
in its effect. Replayed from any point, over the state stored at that point, it yields the same numbers again; so a
change of its rules must take effect from a position of the log on, never for records that may be replayed.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from schemas.messages import Message, MessageAck
from schemas.records import SendRequested
from schemas.types import MAX_EXTRA
from shared import subjects
from shared.ids import (
    EPOCH_MS,
    MAX_COUNTER,
    Private,
    members_of_private,
    month_of,
    snowflake,
    snowflake_ms,
    timestamp_text,
)
from shared.log import Record

_decode = msgspec.json.Decoder(SendRequested).decode
_encode = msgspec.json.Encoder().encode


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
    """Newest numbers of a conversation. `month`: of its newest message, 0 if it has none. `offset`: as in Answer."""

    max_seq: int = 0
    max_rev: int = 0
    month: int = 0
    offset: int = -1


class State:
    """One partition as of `progress`; holds only what was loaded or made, the rest is in SQL."""

    __slots__ = ("answers", "conversations", "partition", "progress")

    def __init__(self, partition: int, progress: Progress) -> None:
        self.partition = partition
        self.progress = progress
        self.conversations: dict[str, Conversation] = {}
        self.answers: dict[bytes, Answer] = {}


class Entry(msgspec.Struct, frozen=True):
    """A record, decoded. `request` None: it cannot be applied, `fault` says why."""

    record: Record
    request: SendRequested | None
    members: Private | None = None
    key: bytes = b""
    digest: bytes = b""
    fault: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """A new message. `row`: columns of `message_<month>` in order. `opens_month`: the conversation's first in it."""

    request: SendRequested
    members: Private
    seq: int
    rev: int
    ms: int
    month: int
    opens_month: bool
    row: tuple[Any, ...]
    key_row: tuple[bytes, bytes, int, int]
    ack: bytes
    message: bytes


class Repeated(msgspec.Struct, frozen=True):
    """The same request again: it gets its first answer once more, and nothing else happens."""

    request: SendRequested
    ack: bytes


class Conflicting(msgspec.Struct, frozen=True):
    """Another message under a client_msg_id that is taken."""

    request: SendRequested


class Dead(msgspec.Struct, frozen=True):
    """A record that cannot be applied; it goes to the dead letters."""

    record: Record
    reason: str
    request: SendRequested | None = None


Effect = Accepted | Repeated | Conflicting | Dead


class NotLoadedError(Exception):
    """`apply` was called without its conversation: a defect of the caller, and nothing was changed."""


def prepare(record: Record) -> Entry:
    """Decodes and checks a record, and derives its idempotence key. Never raises."""
    try:
        request = _decode(record.value)
        members = members_of_private(request.conversation_id)
        if members is None or request.user_id not in members:
            return Entry(record, None, fault="not a private conversation of the acting user")
        if request.reply and not subjects.answer_allowed(request.reply, request.user_id):
            return Entry(
                record, None, fault="the answer would go to a subject that is no inbox of the asker"
            )
        if request.conn and not subjects.is_token(request.conn):
            return Entry(record, None, fault="the connection's id is no token")
        if request.extra is not msgspec.UNSET and len(bytes(request.extra)) > MAX_EXTRA:
            return Entry(record, None, fault=f"extra is over {MAX_EXTRA} bytes")
        return Entry(record, request, members, _key(request), _digest(request))
    except Exception as error:  # noqa: BLE001 - whatever is in the log must not stop the timeline
        return Entry(record, None, fault=f"{type(error).__name__}: {str(error)[:500]}")


def apply(state: State, entry: Entry) -> Effect:
    """Applies the next record of a partition.

    The caller has loaded `state.conversations` of the record's conversation (a new `Conversation` if SQL has none), and
    `state.answers` of its key if SQL has one.

    Raises: NotLoadedError.
    """
    record, request, progress = entry.record, entry.request, state.progress
    effect: Effect
    if request is None:
        effect = Dead(record, entry.fault)
    else:
        conversation = state.conversations.get(request.conversation_id)
        if conversation is None:
            raise NotLoadedError(request.conversation_id)
        try:
            effect, progress = _send(state, conversation, entry, request)
        except Exception as error:  # noqa: BLE001 - one record's defect must not stop the rest
            effect = Dead(record, f"{type(error).__name__}: {str(error)[:500]}", request)
    state.progress = Progress(record.offset + 1, progress.last_ms, progress.counter)
    return effect


def _send(
    state: State, conversation: Conversation, entry: Entry, request: SendRequested
) -> tuple[Effect, Progress]:
    """Numbers a message. Changes the state only after everything that may fail."""
    answer = state.answers.get(entry.key)
    if answer is not None:
        if answer.digest != entry.digest:
            return Conflicting(request), state.progress
        return Repeated(request, _ack(request, answer.msg_id, answer.seq)), state.progress
    offset = entry.record.offset
    progress = _tick(state.progress, entry.record.ms)
    msg_id = snowflake(progress.last_ms, state.partition, progress.counter)
    seq = conversation.max_seq + 1
    month = month_of(progress.last_ms)
    assert entry.members is not None
    effect = Accepted(
        request=request,
        members=entry.members,
        seq=seq,
        rev=conversation.max_rev,
        ms=progress.last_ms,
        month=month,
        opens_month=month != conversation.month,
        row=_row(request, entry.members, msg_id, seq),
        key_row=(entry.key, entry.digest, msg_id, seq),
        ack=_ack(request, msg_id, seq),
        message=_message(request, entry.members, msg_id, seq),
    )
    conversation.max_seq = seq
    conversation.month = month
    conversation.offset = offset
    state.answers[entry.key] = Answer(entry.digest, msg_id, seq, offset)
    return effect, progress


def _tick(progress: Progress, ms: int) -> Progress:
    """The next free Snowflake time: the record's, but never backwards; a full counter runs over into the next ms."""
    if ms > progress.last_ms:
        return Progress(progress.next, ms, 0)
    if progress.counter < MAX_COUNTER:
        return Progress(progress.next, progress.last_ms, progress.counter + 1)
    return Progress(progress.next, progress.last_ms + 1, 0)


def _key(request: SendRequested) -> bytes:
    name = f"{request.conversation_id} {request.user_id} {request.client_msg_id}"
    return blake2b(name.encode(), digest_size=16).digest()


def _digest(request: SendRequested) -> bytes:
    """Of all that makes the message: a repeat must agree in it."""
    extra = None if request.extra is msgspec.UNSET else request.extra
    whole = (
        request.msg_type,
        request.content,
        request.reply_to,
        request.mentions,
        request.file_id,
        extra,
    )
    return blake2b(_encode(whole), digest_size=8).digest()


def _ack(request: SendRequested, msg_id: int, seq: int) -> bytes:
    return _encode(
        MessageAck(
            str(msg_id), request.client_msg_id, request.conversation_id, seq, snowflake_ms(msg_id)
        )
    )


def _message(request: SendRequested, members: Private, msg_id: int, seq: int) -> bytes:
    return _encode(
        Message(
            msg_id=str(msg_id),
            conversation_id=request.conversation_id,
            sender_id=request.user_id,
            msg_type=request.msg_type,
            content=request.content,
            timestamp=snowflake_ms(msg_id),
            seq=seq,
            client_msg_id=request.client_msg_id,
            status=0,
            receiver_id=members.other(request.user_id),
            reply_to=request.reply_to,
            mentions=request.mentions,
            file_id=request.file_id,
            extra=request.extra,
            forward=request.forward,
        )
    )


def _row(request: SendRequested, members: Private, msg_id: int, seq: int) -> tuple[Any, ...]:
    ms = snowflake_ms(msg_id)
    return (
        msg_id,
        str(msg_id),
        request.conversation_id,
        request.user_id,
        members.other(request.user_id),
        None,  # group_id
        request.msg_type,
        request.content,
        0,  # status
        f"{_second(ms // 1000)}.{ms % 1000:03d}",
        seq,
        0,  # rev
        request.client_msg_id,
        request.reply_to,
        _encode(request.mentions).decode() if request.mentions else None,
        request.file_id,
        None if request.extra is msgspec.UNSET else bytes(request.extra).decode(),
        None,  # edited_ms
        _encode(request.forward).decode() if request.forward is not None else None,
        None,  # reactions
        0,  # pinned
    )


_second = lru_cache(4)(timestamp_text)
