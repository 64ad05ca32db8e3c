"""The rule of new messages: idempotence, `seq`, `msg_id`."""

from functools import lru_cache
from hashlib import blake2b

import msgspec

from functions.timeline.state import (
    Accepted,
    Answer,
    Conversation,
    Effect,
    Entry,
    Progress,
    Refused,
    Repeated,
    Row,
    State,
)
from schemas.messages import Message, MessageAck
from schemas.records import SendRequested
from shared.ids import (
    MAX_COUNTER,
    Private,
    group_of,
    month_of,
    snowflake,
    snowflake_ms,
    timestamp_text,
)

_encode = msgspec.json.Encoder().encode


def send(
    state: State, conversation: Conversation, entry: Entry, request: SendRequested
) -> tuple[Effect, Progress]:
    """Numbers a message. Changes the state only after everything that may fail."""
    answer = state.answers.get(entry.key)
    if answer is not None:
        if answer.digest != entry.digest:
            return _taken(request), state.progress
        return Repeated(request, _ack(request, answer.msg_id, answer.seq)), state.progress
    offset = entry.record.offset
    progress = _tick(state.progress, entry.record.ms)
    msg_id = snowflake(progress.last_ms, state.partition, progress.counter)
    seq = conversation.max_seq + 1
    month = month_of(progress.last_ms)
    message = _message(request, entry.members, msg_id, seq)
    effect = Accepted(
        request=request,
        members=entry.members,
        seq=seq,
        rev=conversation.max_rev,
        message_rev=conversation.message_rev,
        ms=progress.last_ms,
        month=month,
        opens_month=month != conversation.month,
        offset=offset,
        row=row_of(message, msg_id),
        key_row=(entry.key, entry.digest, msg_id, seq),
        ack=_ack(request, msg_id, seq),
        message=_encode(message),
    )
    conversation.max_seq = seq
    conversation.month = month
    conversation.offset = offset
    state.answers[entry.key] = Answer(entry.digest, msg_id, seq, offset)
    state.accepted[msg_id] = effect
    return effect, progress


def key_of(request: SendRequested) -> bytes:
    """The idempotence key."""
    name = f"{request.conversation_id} {request.user_id} {request.client_msg_id}"
    return blake2b(name.encode(), digest_size=16).digest()


def digest_of(request: SendRequested) -> bytes:
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
    if request.forward is not None:
        return blake2b(_encode((*whole, request.forward)), digest_size=8).digest()
    return blake2b(_encode(whole), digest_size=8).digest()


def row_of(message: Message, msg_id: int) -> Row:
    """All columns of `message_<month>`, in order."""
    ms = snowflake_ms(msg_id)
    extra = message.extra
    return (
        msg_id,
        message.msg_id,
        message.conversation_id,
        message.sender_id,
        message.receiver_id,
        message.group_id,
        message.msg_type,
        message.content,
        message.status,
        f"{_second(ms // 1000)}.{ms % 1000:03d}",
        message.seq,
        message.rev,
        message.client_msg_id,
        message.reply_to,
        _encode(message.mentions).decode() if message.mentions else None,
        message.file_id,
        None if extra is msgspec.UNSET else bytes(extra).decode(),
        message.edited_at,
        _encode(message.forward).decode() if message.forward is not None else None,
        _encode(message.reactions).decode() if message.reactions else None,
        int(message.pinned),
    )


def _taken(request: SendRequested) -> Refused:
    text = "this client_msg_id already belongs to another message"
    return Refused(request, "conflict", text, "client_msg_id")


def _tick(progress: Progress, ms: int) -> Progress:
    """The next free Snowflake time: the record's, but never backwards; a full counter runs over into the next ms."""
    if ms > progress.last_ms:
        return Progress(progress.next, ms, 0)
    if progress.counter < MAX_COUNTER:
        return Progress(progress.next, progress.last_ms, progress.counter + 1)
    return Progress(progress.next, progress.last_ms + 1, 0)


def _ack(request: SendRequested, msg_id: int, seq: int) -> bytes:
    return _encode(
        MessageAck(
            str(msg_id), request.client_msg_id, request.conversation_id, seq, snowflake_ms(msg_id)
        )
    )


def _message(request: SendRequested, members: Private | None, msg_id: int, seq: int) -> Message:
    return Message(
        msg_id=str(msg_id),
        conversation_id=request.conversation_id,
        sender_id=request.user_id,
        msg_type=request.msg_type,
        content=request.content,
        timestamp=snowflake_ms(msg_id),
        seq=seq,
        client_msg_id=request.client_msg_id,
        status=0,
        receiver_id=None if members is None else members.other(request.user_id),
        group_id=group_of(request.conversation_id) if members is None else None,
        reply_to=request.reply_to,
        mentions=request.mentions,
        file_id=request.file_id,
        extra=request.extra,
        forward=request.forward,
    )


_second = lru_cache(4)(timestamp_text)
