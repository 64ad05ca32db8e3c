"""The conversation list and what one sets in it; receipts, earlier contents and pinned messages: `history`."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from schemas.messages import Message, Rev
from schemas.types import (
    ConversationId,
    Cursor,
    Limit,
    Milliseconds,
    Model,
    MsgId,
    Next,
    Seq,
    UserId,
)

MAX_DRAFT = 16_000

Draft = Annotated[
    str, Meta(min_length=1, max_length=MAX_DRAFT, description="A message begun and not sent.")
]


class ConversationState(Model):
    """One conversation as one user has it, the same on all devices. All fields are always there."""

    conversation_id: ConversationId
    unread: Annotated[
        int,
        Meta(ge=0, description="Messages of others after `read_seq`, without recalled ones."),
    ]
    mentions: Annotated[int, Meta(ge=0, description='Those of them that address me, or "all".')]
    max_seq: Annotated[Seq, Meta(description="`seq` of the newest message that I may see.")]
    max_rev: Annotated[Rev, Meta(description="`rev` of the newest change.")]
    read_seq: Annotated[Seq, Meta(description="How far I have read.")]
    cleared_seq: Annotated[Seq, Meta(description="Up to here I have cleared it for myself.")]
    pinned: bool
    muted: bool
    draft: Draft | None


class ConversationSummary(ConversationState, kw_only=True):
    """An entry of the conversation list. All fields are always there."""

    last_message: Message | None


class ListConversations(Model):
    """Lists one's conversations: pinned ones first, then by their newest message."""

    cursor: Cursor | None = None
    limit: Limit = 50


class Conversations(Model):
    """A page of one's conversations."""

    conversations: list[ConversationSummary]
    next: Next | None


class UpdateConversation(Model):
    """Sets what is present, on all one's devices; `draft` null or empty removes it."""

    conversation_id: ConversationId
    pinned: bool | UnsetType = UNSET
    muted: Annotated[bool, Meta(description="No notification.")] | UnsetType = UNSET
    draft: Annotated[str, Meta(max_length=MAX_DRAFT)] | UnsetType | None = UNSET


class ClearConversation(Model):
    """Removes messages for oneself, on all devices: all there are, or those up to `upto_seq`.

    The others keep them. What is cleared once stays so.
    """

    conversation_id: ConversationId
    upto_seq: Seq | None = None


class ListReceipts(Model):
    """Who has read a message, and whose devices have it. Pages go by user."""

    msg_id: MsgId
    cursor: Cursor | None = None
    limit: Limit = 50


class Receipt(Model):
    """A member who has a message, or has read it."""

    user_id: UserId


class Receipts(Model):
    """Who has read a message and who has it, without its sender. Who has read it also has it."""

    read: list[Receipt]
    delivered: list[Receipt]
    read_count: Annotated[int, Meta(ge=0, description="Of all members, not only of this page.")]
    delivered_count: Annotated[int, Meta(ge=0, description="Likewise.")]
    next: Next | None


class ListEdits(Model):
    """What a message was before it was edited."""

    msg_id: MsgId


class Edit(Model):
    """A content that was replaced."""

    rev: Annotated[Rev, Meta(description="The change that replaced it.")]
    content: str
    edited_at: Annotated[Milliseconds, Meta(description="When it was replaced.")]


class Edits(Model):
    """Earlier contents, oldest first. What the message is now stands in the message."""

    edits: list[Edit]


class ListPins(Model):
    """The pinned messages of a conversation, the one pinned last first."""

    conversation_id: ConversationId
    cursor: Cursor | None = None
    limit: Limit = 50


class PinnedMessage(Model):
    """A pinned message, by whom and since when."""

    message: Message
    user_id: UserId
    pinned_at: Milliseconds


class Pins(Model):
    """A page of pinned messages."""

    pins: list[PinnedMessage]
    next: Next | None
