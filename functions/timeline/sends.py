"""The rule of new messages: idempotence, `seq`, `msg_id`."""

import re
from functools import lru_cache
from hashlib import blake2b

import msgspec

from functions.timeline.state import (
    Accepted,
    Answer,
    Conversation,
    ConversationRow,
    Effect,
    Entry,
    Position,
    Progress,
    Refused,
    Repeated,
    Row,
    State,
    Unchanged,
)
from schemas.messages import Message, MessageAck
from schemas.records import SendRequested, SystemRequested
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
_UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch


def send(
    state: State, conversation: Conversation, entry: Entry, request: SendRequested
) -> tuple[Effect, Progress]:
    """Numbers a message. Changes the state only after everything that may fail."""
    answer = state.answers.get(entry.key)
    if answer is not None:
        if answer.digest != entry.digest:
            return _taken(request), state.progress
        return Repeated(request, _ack(request, answer.msg_id, answer.seq)), state.progress
    if request.forward_of is not None and request.forward is None:
        text = f"no message {request.forward_of}"
        return Refused(request, "not_found", text, "forward_of"), state.progress
    progress = _tick(state.progress, entry.record.ms)
    msg_id = snowflake(progress.last_ms, state.partition, progress.counter)
    seq = conversation.max_seq + 1
    message = _message(request, entry.members, msg_id, seq)
    ack, version = _ack(request, msg_id, seq), conversation.members_version
    effect = _accept(state, conversation, entry, request, progress, message, ack, version)
    return effect, progress


def system(
    state: State, conversation: Conversation, entry: Entry, request: SystemRequested
) -> tuple[Effect, Progress]:
    """Numbers the message of a change in a group: the border of what those who come and go may see."""
    ack = bytes(request.answer) if isinstance(request.answer, msgspec.Raw) else b"{}"
    answer = state.answers.get(entry.key)
    if answer is not None:
        if answer.digest != entry.digest:
            return _taken(request), state.progress
        return Unchanged(request, ack), state.progress
    progress = _tick(state.progress, entry.record.ms)
    msg_id = snowflake(progress.last_ms, state.partition, progress.counter)
    seq = conversation.max_seq + 1
    message = Message(
        msg_id=str(msg_id),
        conversation_id=request.conversation_id,
        sender_id=request.user_id,
        msg_type=0,
        content=request.content,
        timestamp=snowflake_ms(msg_id),
        seq=seq,
        client_msg_id=request.client_msg_id,
        status=0,
        group_id=group_of(request.conversation_id),
    )
    version = max(conversation.members_version, request.members_version)
    effect = _accept(state, conversation, entry, request, progress, message, ack, version)
    if request.joined and not request.sees_all:
        conversation.border = seq - 1
    for user_id in request.joined:
        position = Position(seq - 1, conversation.max_rev, seq - 1, entry.record.offset)
        state.positions[user_id, request.conversation_id] = position
    for user_id in request.left:
        # Until it is stored, SQL would still say that he is there.
        gone = Position(offset=entry.record.offset, left=True)
        state.positions[user_id, request.conversation_id] = gone
    return effect, progress


def _accept(
    state: State,
    conversation: Conversation,
    entry: Entry,
    request: SendRequested | SystemRequested,
    progress: Progress,
    message: Message,
    ack: bytes,
    members_version: int,
) -> Accepted:
    """The effect of a new message. Changes the state only after everything that may fail."""
    offset = entry.record.offset
    msg_id, seq = int(message.msg_id), message.seq
    month = month_of(progress.last_ms)
    max_uuid = max(conversation.max_uuid, entry.uuid)
    effect = Accepted(
        request=request,
        members=entry.members,
        seq=seq,
        head=ConversationRow(
            request.conversation_id,
            seq,
            conversation.max_rev,
            progress.last_ms,
            conversation.message_rev,
            members_version,
            max_uuid,
            seq,
        ),
        month=month,
        opens_month=month != conversation.month,
        offset=offset,
        row=row_of(message, msg_id),
        key_row=(entry.key, entry.digest, msg_id, seq),
        ack=ack,
        message=_encode(message),
    )
    conversation.max_seq = seq
    conversation.month = month
    conversation.max_uuid = max_uuid
    conversation.offset = offset
    state.answers[entry.key] = Answer(entry.digest, msg_id, seq, offset)
    conversation.members_version = members_version
    state.accepted[msg_id] = effect
    return effect


def identity_of(request: SendRequested | SystemRequested) -> tuple[bytes, bytes, str]:
    """`key`, `digest` and `uuid` of an `Entry`."""
    client_msg_id = request.client_msg_id
    name = f"{request.conversation_id} {request.user_id} {client_msg_id}"
    key = blake2b(name.encode(), digest_size=16).digest()
    return key, digest_of(request), client_msg_id if _UUID7(client_msg_id) else ""


def digest_of(request: SendRequested | SystemRequested) -> bytes:
    """Of all that makes the message: a repeat must agree in it."""
    if isinstance(request, SystemRequested):
        change = (request.content, request.joined, request.left, request.members_version)
        return blake2b(_encode((0, *change, request.sees_all)), digest_size=8).digest()
    if request.forward_of is not None:
        # Not of what it says: when this is repeated, the message that it repeats may have been edited or recalled.
        named = (request.reply_to, request.mentions, request.forward_of)
        return blake2b(_encode(named), digest_size=8).digest()
    if request.forward is not None:  # records that do not say what the command named
        forwarded = (request.reply_to, request.mentions, request.forward)
        return blake2b(_encode(forwarded), digest_size=8).digest()
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


def row_of(message: Message, msg_id: int) -> Row:
    """All columns of `message_<month>`, in order."""
    ms = message.timestamp
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


def _taken(request: SendRequested | SystemRequested) -> Refused:
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
