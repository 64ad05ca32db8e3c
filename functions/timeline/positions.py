"""The rules of positions: how far members have read, and what their devices have. Both only move forward.

A read in a private conversation is a change with a `rev`, so that the peer's devices which were away learn of it. In a
group it is not: 500 members would count each message 500 times.
"""

import msgspec

from functions.timeline.state import (
    Conversation,
    Effect,
    Entry,
    Moved,
    Position,
    Refused,
    State,
    Unchanged,
)
from schemas import events
from schemas.messages import ReadPosition
from schemas.records import AnyRequest, DeliveredRequested, ReadRequested
from schemas.types import Empty
from shared.function import frame

_encode = msgspec.json.Encoder().encode
_EMPTY = _encode(Empty())


def read(state: State, conversation: Conversation, entry: Entry, request: ReadRequested) -> Effect:
    """Moves what is read, at most to the newest message; that is then delivered as well."""
    position = _position(state, entry, request)
    if position is None:
        return _no_member(request)
    seq = min(request.seq, conversation.max_seq)
    if seq <= position.read_seq:
        return Unchanged(request, _ack(conversation, request, position.read_seq))
    counts = entry.members is not None
    rev = conversation.max_rev + 1 if counts else conversation.max_rev
    event = events.Read(request.conversation_id, request.user_id, seq, rev)
    new = Position(
        seq,
        rev,
        max(seq, position.delivered_seq),
        entry.record.offset,
    )
    conversation.max_rev = rev
    ack = _ack(conversation, request, seq)
    return _move(state, conversation, entry, request, new, event, ack)


def delivered(
    state: State, conversation: Conversation, entry: Entry, request: DeliveredRequested
) -> Effect:
    """Moves what is delivered, at most to the newest message."""
    position = _position(state, entry, request)
    if position is None:
        return _no_member(request)
    seq = min(request.seq, conversation.max_seq)
    if seq <= position.delivered_seq:
        return Unchanged(request, _EMPTY)
    event = events.Delivered(request.conversation_id, request.user_id, seq)
    new = Position(position.read_seq, position.read_rev, seq, entry.record.offset)
    return _move(state, conversation, entry, request, new, event, _EMPTY)


def _position(state: State, entry: Entry, request: AnyRequest) -> Position | None:
    """Where the member stands; None: in SQL there is no such member of the group."""
    position = state.positions.get((request.user_id, request.conversation_id))
    if position is not None and position.left:
        return None
    # Members of a private conversation are in SQL with its first message, which may not be stored yet.
    return Position() if position is None and entry.members is not None else position


def _no_member(request: AnyRequest) -> Refused:
    return Refused(request, "not_member", "you are not in this group", "conversation_id")


def _ack(conversation: Conversation, request: ReadRequested, seq: int) -> bytes:
    rest = 0 if seq >= conversation.max_seq else None
    return _encode(
        ReadPosition(request.conversation_id, seq, conversation.max_rev, unread=rest, mentions=rest)
    )


def _move(
    state: State,
    conversation: Conversation,
    entry: Entry,
    request: AnyRequest,
    new: Position,
    event: events.Read | events.Delivered,
    ack: bytes,
) -> Moved:
    place = (request.user_id, request.conversation_id)
    head = None
    if type(event) is events.Read and entry.members is not None:
        head = conversation.row(
            request.conversation_id,
            conversation.max_rev,
            conversation.message_rev,
            max(state.progress.last_ms, entry.record.ms),
        )
    effect = Moved(
        request=request,
        members=entry.members,
        read=type(event) is events.Read,
        head=head,
        row=(*place, new.read_seq, new.read_rev, new.delivered_seq),
        frame=frame(event, event.type),
        ack=ack,
    )
    state.positions[place] = new
    if head is not None:
        conversation.offset = entry.record.offset
    return effect
