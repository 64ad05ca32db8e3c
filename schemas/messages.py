"""Messages, what changes them, and their history: requests and replies of `send`, `recall`, `read` and `history`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.types import (
    MAX_CONTENT,
    ClientMsgId,
    ConversationId,
    Cursor,
    Extra,
    GroupId,
    Limit,
    Milliseconds,
    Model,
    MsgId,
    Next,
    Seq,
    Token,
    UserId,
)

MsgType = Annotated[int, Meta(ge=1, le=5, description="1 text, 2 image, 3 file, 4 voice, 5 video.")]
AnyMsgType = Annotated[
    int,
    Meta(ge=0, le=5, description="As a client sends them, and 0: a message of the server itself."),
]
Rev = Annotated[
    int,
    Meta(
        ge=0,
        description="Number of a change in a conversation: 1, 2, 3 … without gaps.",
    ),
]
Mention = UserId | Literal["all"]
Mentions = Annotated[
    list[Mention], Meta(max_length=100, description='Users who are addressed; "all": everybody.')
]
Content = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_CONTENT, description="The text, or a caption."),
]
Emoji = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        pattern=r"^[^\s\x00-\x1f\x7f]+$(?!\n)",
        description="One emoji, or a short name of one; compared byte by byte.",
    ),
]
MAX_REACTORS = 20
"""Users named in one `Reaction`."""


class Origin(Model):
    """The message that a forwarded one repeats: of a forward of a forward it is the very first."""

    msg_id: MsgId
    conversation_id: ConversationId
    sender_id: UserId
    timestamp: Milliseconds


class Reaction(Model):
    """One emoji on a message: how many reacted with it, and who was first."""

    emoji: Emoji
    count: Annotated[int, Meta(ge=1)]
    user_ids: Annotated[
        list[UserId],
        Meta(max_length=MAX_REACTORS, description="The first who reacted, in that order."),
    ]


class SendMessage(Model):
    """Sends one message to exactly one of `receiver_id`, `group_id`, `conversation_id`.

    The same `client_msg_id` again in the same conversation is the same message: same answer,
    nothing sent twice; with another content it is a `conflict`.

    With `forward_of` the message repeats that one: `msg_type`, `content`, `file_id` and `extra` are
    taken from there. Otherwise there must be a `content`.
    """

    client_msg_id: ClientMsgId
    content: Annotated[
        str,
        Meta(
            max_length=MAX_CONTENT,
            description="The text; of other types their JSON in a string "
            "(`ImageContent`, `FileContent`, `VoiceContent`, `VideoContent`).",
        ),
    ] = ""
    receiver_id: UserId | None = None
    group_id: GroupId | None = None
    conversation_id: ConversationId | None = None
    msg_type: MsgType = 1
    reply_to: Annotated[MsgId, Meta(description="A message of the same conversation.")] | None = (
        None
    )
    mentions: Mentions = []
    file_id: (
        Annotated[
            Token, Meta(description="Of other types than text: the `file_id` of their content.")
        ]
        | None
    ) = None
    extra: Extra = msgspec.UNSET
    forward_of: Annotated[MsgId, Meta(description="A message that the sender may see.")] | None = (
        None
    )


class MessageAck(Model):
    """The message is in the log on all in-sync replicas: it has its place and will not be lost."""

    msg_id: MsgId
    client_msg_id: ClientMsgId
    conversation_id: ConversationId
    seq: Seq
    timestamp: Milliseconds


class Message(Model):
    """One message as everybody sees it.

    `status` 0 = normal, 1 = recalled: `content` is empty then, and what belonged to it is gone.
    `rev` is the number of its newest change; of two copies the one with the higher `rev` holds.
    """

    msg_id: MsgId
    conversation_id: ConversationId
    sender_id: UserId
    msg_type: AnyMsgType
    content: str
    timestamp: Milliseconds
    seq: Seq
    client_msg_id: ClientMsgId
    status: Annotated[int, Meta(ge=0, le=1, description="0 normal, 1 recalled.")]
    receiver_id: UserId | None = None
    group_id: GroupId | None = None
    rev: Rev = 0
    reply_to: MsgId | None = None
    mentions: list[Mention] = []
    file_id: Token | None = None
    extra: Extra = msgspec.UNSET
    edited_at: Milliseconds | None = None
    forward: Origin | None = None
    reactions: list[Reaction] = []
    pinned: bool = False


class RecallMessage(Model):
    """Takes a message back, from everywhere. A tombstone stays in its place.

    The sender may for two minutes (a setting of the server); the owner and the admins of a group
    may at any time.
    """

    msg_id: MsgId


class EditMessage(Model):
    """Gives one's own message another content. What it was stays readable."""

    msg_id: MsgId
    content: Content
    mentions: Mentions = []


class ReactToMessage(Model):
    """Puts an emoji on a message, or takes one's own away again."""

    msg_id: MsgId
    emoji: Emoji
    remove: bool = False


class PinMessage(Model):
    """Pins a message in its conversation, for all who are in it, or unpins it."""

    msg_id: MsgId
    remove: bool = False


class Changed(Model):
    """The change stands: whoever reads the message from now on reads it so.

    What was so already is not changed once more: `rev` is then what the message has.
    """

    msg_id: MsgId
    conversation_id: ConversationId
    seq: Seq
    rev: Rev
    timestamp: Annotated[Milliseconds, Meta(description="Of the change; of a repeat, its own.")]


class ReadMessages(Model):
    """Says that one has read a conversation up to here, on any device. Only moves forward."""

    conversation_id: ConversationId
    seq: Seq


class ReadPosition(Model):
    """How far one has read, on all devices together."""

    conversation_id: ConversationId
    seq: Seq
    rev: Rev
    unread: (
        Annotated[
            int, Meta(ge=0, description="0 when all is read; otherwise `conversation.list` counts.")
        ]
        | None
    ) = None
    mentions: (
        Annotated[int, Meta(ge=0, description="Likewise, those that address oneself.")] | None
    ) = None


class ConfirmDelivery(Model):
    """Says that a device has everything up to here. Only moves forward."""

    conversation_id: ConversationId
    seq: Seq


class GetHistory(Model):
    """A page of a conversation, ascending, bounds exclusive.

    Neither bound: the newest. `before_seq`: what is just older. `after_seq`: what is just newer.
    Both: the span between, from `after_seq`. `after_rev` also asks for the messages that changed
    after it, and for read positions.
    """

    conversation_id: ConversationId
    before_seq: Seq | None = None
    after_seq: Seq | None = None
    after_rev: Rev | None = None
    limit: Limit = 50


class ReadState(Model):
    """How far a member has read, and how far his devices have the messages."""

    user_id: UserId
    seq: Seq
    delivered_seq: Seq = 0


class History(Model):
    """A page of a conversation, and how far the whole conversation is.

    Ask again, from the last `seq` and with `upto_rev` as `after_rev`, while `has_more`.
    """

    messages: Annotated[list[Message], Meta(description="Ascending by `seq`.")]
    has_more: Annotated[
        bool,
        Meta(description="More messages follow in the direction of reading, or more changes."),
    ]
    max_seq: Annotated[
        Seq, Meta(description="`seq` of the newest message that is there for the reader; 0: none.")
    ]
    changes: Annotated[
        list[Message],
        Meta(
            description="What changed after `after_rev`, as it is now, ascending by `rev`; "
            "each message once."
        ),
    ]
    max_rev: Annotated[Rev, Meta(description="`rev` of the conversation's newest change; 0: none.")]
    upto_rev: (
        Annotated[
            Rev, Meta(description="`changes` are complete up to here. Only if they were asked for.")
        ]
        | None
    ) = None
    first_seq: Annotated[
        Seq,
        Meta(description="Messages before it are not there for the reader: cleared, or too old."),
    ] = 1
    reads: Annotated[
        list[ReadState],
        Meta(
            description="Read positions: of both members, in groups only one's own. "
            "Only if changes were asked for."
        ),
    ] = []


class Position(Model):
    """How far a device has a conversation."""

    conversation_id: ConversationId
    after_seq: Seq = 0
    after_rev: Rev = 0
    read_seq: (
        Annotated[
            Seq, Meta(description="How far the device knows its user to have read, in groups.")
        ]
        | None
    ) = None


class Sync(Model):
    """Catches up: names the positions a device has, and gets what is newer.

    That brings conversations which the device does not know yet, too. Pages: conversations by
    `cursor`; within one, `has_more` says that `message.history` has the rest.
    """

    positions: Annotated[
        list[Position],
        Meta(
            max_length=500,
            description="A conversation that is not named counts as position 0.",
        ),
    ] = []
    cursor: Cursor | None = None
    limit: Limit = 50


class SyncedConversation(History, kw_only=True):
    """What is new in one conversation, ascending from the device's position.

    While `has_more`, `message.history` with `after_seq` and `after_rev` has the rest.
    """

    conversation_id: ConversationId


class Synced(Model):
    """A page of the conversations with something new."""

    conversations: list[SyncedConversation]
    next: Next | None
