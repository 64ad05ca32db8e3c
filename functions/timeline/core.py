"""The timeline's rules: what a record of the log becomes, decided by the log and by what was decided before.

Pure: no clock, no I/O, no randomness. `apply` changes the state it is given in place; everything else it wants is data
in its effect. Replayed from any point, over the state stored at that point, it yields the same numbers again; so a
change of its rules must take effect from a position of the log on, never for records that may be replayed.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from functions.timeline import changes, positions, sends
from functions.timeline.state import (
    Conversation,
    Dead,
    Effect,
    Entry,
    NotLoadedError,
    Progress,
    State,
)
from schemas.records import (
    AnyRequest,
    DeliveredRequested,
    EditRequested,
    PinRequested,
    ReactRequested,
    ReadRequested,
    RecallRequested,
    SendRequested,
    SystemRequested,
)
from schemas.types import MAX_EXTRA
from shared import subjects
from shared.ids import MAX_ID, group_of, members_of_private
from shared.log import Record

_decode = msgspec.json.Decoder(AnyRequest).decode

_RULES: dict[type[AnyRequest], Callable[[State, Conversation, Entry, Any], Effect]] = {
    RecallRequested: changes.recall,
    EditRequested: changes.edit,
    ReactRequested: changes.react,
    PinRequested: changes.pin,
    ReadRequested: positions.read,
    DeliveredRequested: positions.delivered,
}


def prepare(record: Record) -> Entry:
    """Decodes and checks a record, and derives its idempotence key. Never raises."""
    try:
        request = _decode(record.value)
        members = members_of_private(request.conversation_id)
        if members is None:
            # Whether he is in a group, the function has checked that appended the record.
            if group_of(request.conversation_id) is None:
                return Entry(record, None, fault="not the name of a conversation")
        elif request.user_id not in members:
            return Entry(record, None, fault="not a private conversation of the acting user")
        if request.reply and not subjects.answer_allowed(request.reply, request.user_id):
            return Entry(
                record, None, fault="the answer would go to a subject that is no inbox of the asker"
            )
        if request.conn and not subjects.is_token(request.conn):
            return Entry(record, None, fault="the connection's id is no token")
        if type(request) is SendRequested:
            if request.extra is not msgspec.UNSET and len(bytes(request.extra)) > MAX_EXTRA:
                return Entry(record, None, fault=f"extra is over {MAX_EXTRA} bytes")
            return Entry(record, request, members, *sends.identity_of(request))
        if type(request) is SystemRequested:
            if members is not None:
                return Entry(record, None, fault="a change of members of what is no group")
            return Entry(record, request, None, *sends.identity_of(request))
        if type(request) not in _RULES:
            return Entry(record, None, fault=f"no rule for {type(request).__name__}")
        post = int(getattr(request, "msg_id", 0))
        return Entry(record, request, members, post=post if post <= MAX_ID else 0)
    except Exception as error:  # noqa: BLE001 - whatever is in the log must not stop the timeline
        return Entry(record, None, fault=f"{type(error).__name__}: {str(error)[:500]}")


def apply(state: State, entry: Entry) -> Effect:
    """Applies the next record of a partition.

    The caller has loaded what the record needs, if SQL has it: `state.conversations` of its conversation (a new
    `Conversation` if SQL has none), `state.answers` of its key unless its UUID says that there is none,
    `state.posts` of the message it refers to unless that is in `state.accepted`, and `state.positions` of its user if
    it moves one.

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
            if type(request) is SendRequested:
                effect, progress = sends.send(state, conversation, entry, request)
            elif type(request) is SystemRequested:
                effect, progress = sends.system(state, conversation, entry, request)
            else:
                effect = _RULES[type(request)](state, conversation, entry, request)
        except Exception as error:  # noqa: BLE001 - one record's defect must not stop the rest
            effect = Dead(record, f"{type(error).__name__}: {str(error)[:500]}", request)
    state.progress = Progress(record.offset + 1, progress.last_ms, progress.counter)
    return effect
