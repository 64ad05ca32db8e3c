"""The rules of what changes a message: recall, edit, reactions, pins.

Each change of a message is a `rev` of its conversation. What is so already is answered and changes nothing, so that
asking twice is safe.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from functions.timeline.sends import row_of
from functions.timeline.state import (
    Accepted,
    Changed,
    Conversation,
    Effect,
    Entry,
    Post,
    Reactor,
    Refused,
    Row,
    State,
    Unchanged,
    Write,
)
from schemas import events, messages
from schemas.messages import MAX_REACTORS, Mention, Message, Reaction
from schemas.records import (
    AnyRequest,
    EditRequested,
    PinRequested,
    ReactRequested,
    RecallRequested,
)
from shared.function import frame
from shared.ids import month_of

RECALLED = 1
SYSTEM = 0
"""`msg_type` of the server's own messages."""
MAX_EMOJIS = 50
"""Different emojis on one message: its row has to hold them."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


def recall(
    state: State, conversation: Conversation, entry: Entry, request: RecallRequested
) -> Effect:
    """Leaves a tombstone, within the window, by the record's own time."""
    post = _post(state, entry)
    if post is None:
        return _unknown(request)
    old, ms = post.message, _time(entry, post)
    if (not request.moderator and old.sender_id != request.user_id) or old.msg_type == SYSTEM:
        return Refused(request, "forbidden", "not your message", "msg_id")
    if old.status == RECALLED:
        return _unchanged(entry, request, post)
    if not request.moderator and entry.record.ms - old.timestamp > request.window_ms:
        return Refused(request, "recall_window_passed", "too late to recall this message")
    rev = conversation.max_rev + 1
    new = replace(
        old,
        status=RECALLED,
        content="",
        rev=rev,
        reply_to=None,
        mentions=[],
        file_id=None,
        extra=msgspec.UNSET,
        edited_at=None,
        forward=None,
        reactions=[],
        pinned=False,
    )
    writes = [Write("message_edit", (entry.post,), None)] if old.edited_at is not None else []
    if old.reactions:
        writes.append(Write("message_reaction", (entry.post,), None))
    if old.pinned:
        writes.append(Write("conversation_pin", (old.conversation_id, entry.post), None))
    writes += _mentions(old, [])
    event = events.Recalled(**_about(request, new), timestamp=ms)
    return _change(state, conversation, entry, new, (), "recalled", ms, writes, event)


def edit(state: State, conversation: Conversation, entry: Entry, request: EditRequested) -> Effect:
    """Replaces content and mentions; what they were is kept."""
    post = _post(state, entry)
    if post is None:
        return _unknown(request)
    old, ms = post.message, _time(entry, post)
    if old.sender_id != request.user_id or old.msg_type == SYSTEM:
        return Refused(request, "forbidden", "not your message", "msg_id")
    if old.status == RECALLED:
        return _fixed(request, old)
    if (old.content, old.mentions) == (request.content, request.mentions):
        return _unchanged(entry, request, post)
    rev = conversation.max_rev + 1
    new = replace(old, content=request.content, mentions=request.mentions, edited_at=ms, rev=rev)
    writes = [
        Write("message_edit", (entry.post, rev), (entry.post, rev, old.content, ms)),
        *_mentions(old, request.mentions),
    ]
    event = events.Edited(
        **_about(request, new), content=new.content, mentions=new.mentions, edited_at=ms
    )
    # Who may not see it would read it here. After the head that follows the COMMIT each fetches what is there for him.
    push = None if old.seq <= conversation.border else event
    return _change(state, conversation, entry, new, post.reactors, "edited", ms, writes, push)


def react(
    state: State, conversation: Conversation, entry: Entry, request: ReactRequested
) -> Effect:
    """Adds or removes one user's one emoji; the message holds counts and the first who reacted."""
    post = _post(state, entry)
    if post is None:
        return _unknown(request)
    old, ms = post.message, _time(entry, post)
    if old.status == RECALLED or old.msg_type == SYSTEM:
        return _fixed(request, old)
    mine = Reactor(request.emoji, request.user_id)
    if (mine in post.reactors) != request.remove:
        return _unchanged(entry, request, post)
    emojis = {emoji for emoji, _ in post.reactors}
    if request.emoji not in emojis and len(emojis) >= MAX_EMOJIS:
        text = f"a message holds {MAX_EMOJIS} different emojis"
        return Refused(request, "conflict", text, "emoji")
    rev = conversation.max_rev + 1
    key = (entry.post, *mine)
    if request.remove:
        reactors = tuple(one for one in post.reactors if one != mine)
        write = Write("message_reaction", key, None)
    else:
        reactors = (*post.reactors, mine)
        write = Write("message_reaction", key, (*key, rev))
    reactions = _counted(reactors)
    new = replace(old, reactions=reactions, rev=rev)
    event = events.Reacted(
        **_about(request, new), emoji=request.emoji, remove=request.remove, reactions=reactions
    )
    return _change(state, conversation, entry, new, reactors, "reacted", ms, [write], event)


def pin(state: State, conversation: Conversation, entry: Entry, request: PinRequested) -> Effect:
    """Pins or unpins for all members."""
    post = _post(state, entry)
    if post is None:
        return _unknown(request)
    old, ms = post.message, _time(entry, post)
    if old.status == RECALLED or old.msg_type == SYSTEM:
        return _fixed(request, old)
    if old.pinned != request.remove:
        return _unchanged(entry, request, post)
    new = replace(old, pinned=not request.remove, rev=conversation.max_rev + 1)
    key = (old.conversation_id, entry.post)
    row = None if request.remove else (*key, request.user_id, ms)
    event = events.Pinned(**_about(request, new), remove=request.remove)
    writes = [Write("conversation_pin", key, row)]
    return _change(state, conversation, entry, new, post.reactors, "pinned", ms, writes, event)


def mention_rows(mentions: list[Mention], conversation_id: str, seq: int) -> list[Row]:
    """Rows of `message_mention`: each user once, everybody as 0."""
    users = dict.fromkeys(0 if mention == "all" else mention for mention in mentions)
    return [(user, conversation_id, seq) for user in users]


def _counted(reactors: tuple[Reactor, ...]) -> list[Reaction]:
    """Emojis in the order of the first who reacted with them."""
    users: dict[str, list[int]] = {}
    for emoji, user_id in reactors:
        users.setdefault(emoji, []).append(user_id)
    return [Reaction(emoji, len(who), who[:MAX_REACTORS]) for emoji, who in users.items()]


def _post(state: State, entry: Entry) -> Post | None:
    """The message that the record refers to, if it is one of its conversation."""
    assert entry.request is not None
    post = state.posts.get(entry.post)
    if post is None and (accepted := state.accepted.get(entry.post)) is not None:
        post = state.posts[entry.post] = Post(_decode(accepted.message), (), accepted.offset)
    if post is None or post.message.conversation_id != entry.request.conversation_id:
        return None
    return post


def _time(entry: Entry, post: Post) -> int:
    """Of the change: the log's, but never before what it changes."""
    return max(entry.record.ms, post.message.timestamp, post.message.edited_at or 0)


def _unknown(request: AnyRequest) -> Refused:
    return Refused(request, "not_found", "no such message in this conversation", "msg_id")


def _fixed(request: AnyRequest, message: Message) -> Refused:
    system = message.msg_type == SYSTEM
    text = "the server's own messages do not change" if system else "this message was recalled"
    return Refused(request, "conflict", text, "msg_id")


def _about(request: Any, new: Message) -> dict[str, Any]:
    """What all events of changes say."""
    return {
        "conversation_id": new.conversation_id,
        "msg_id": new.msg_id,
        "seq": new.seq,
        "rev": new.rev,
        "user_id": request.user_id,
    }


def _mentions(old: Message, new: list[Mention]) -> list[Write]:
    place = (old.conversation_id, old.seq)
    before, after = (mention_rows(m, *place) for m in (old.mentions, new))
    return [Write("message_mention", row, None) for row in before if row not in after] + [
        Write("message_mention", row, row) for row in after if row not in before
    ]


def _unchanged(entry: Entry, request: AnyRequest, post: Post) -> Unchanged:
    return Unchanged(request, _ack(post.message, post.message.rev, _time(entry, post)))


def _ack(message: Message, rev: int, ms: int) -> bytes:
    return _encode(messages.Changed(message.msg_id, message.conversation_id, message.seq, rev, ms))


def _change(
    state: State,
    conversation: Conversation,
    entry: Entry,
    new: Message,
    reactors: tuple[Reactor, ...],
    kind: str,
    ms: int,
    writes: list[Write],
    event: events.Change | None,
) -> Changed:
    """The effect. Changes the state only after everything that may fail."""
    assert entry.request is not None
    write = Write(
        "message_change", (new.conversation_id, new.rev), (new.conversation_id, new.rev, entry.post)
    )
    effect = Changed(
        request=entry.request,
        members=entry.members,
        kind=kind,
        msg_id=entry.post,
        seq=new.seq,
        rev=new.rev,
        before=conversation.message_rev,
        head=conversation.row(
            new.conversation_id, new.rev, new.rev, max(state.progress.last_ms, entry.record.ms)
        ),
        month=month_of(new.timestamp),
        row=row_of(new, entry.post),
        writes=(write, *writes),
        message=_encode(new),
        frame=b"" if event is None else frame(event, event.type),
        ack=_ack(new, new.rev, ms),
    )
    offset = entry.record.offset
    state.posts[entry.post] = Post(new, reactors, offset)
    conversation.max_rev = conversation.message_rev = new.rev
    conversation.offset = offset
    return effect


def strip(effects: list[Effect]) -> list[Effect]:
    """What may leave the timeline: of messages that are recalled in the same batch only the tombstone."""
    recalled = {
        effect.msg_id: effect
        for effect in effects
        if type(effect) is Changed and effect.kind == "recalled"
    }
    if not recalled:
        return effects
    return [
        msgspec.structs.replace(effect, message=recalled[effect.row[0]].message)
        if type(effect) is Accepted and effect.row[0] in recalled
        else effect
        for effect in effects
    ]
