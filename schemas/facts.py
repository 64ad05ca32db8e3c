"""Facts: what has happened for good. The timeline appends them to the log `im.events`, keyed by conversation.

The function `facts` publishes each, byte for byte, on `im.v1.evt.<type>` (JetStream), where integrators take them.
They come at least once: `id` tells a repeat. Fields are only added, with defaults.
"""

from typing import Annotated

from msgspec import Meta

from schemas.messages import Message
from schemas.types import Model, UserId

FactId = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9_.-]{1,128}$(?!\n)",
        description="The same for every repeat of this fact, and of no other: leave out what you know.",
    ),
]


class Fact(Model, tag_field="type", kw_only=True):
    """Common part. The type `<domain>.<fact>` is also the end of the subject."""

    id: FactId
    trace: Annotated[
        str, Meta(description="W3C `traceparent` of the command behind it; empty: none.")
    ] = ""


class MessageSent(Fact, tag="message.sent", kw_only=True):
    """A message has its place in its conversation; `seq` counts them without gaps."""

    data: Message


class MessageRecalled(Fact, tag="message.recalled", kw_only=True):
    """A message was taken back: what was made of its content must go. `data` is the tombstone."""

    data: Message
    user_id: Annotated[UserId, Meta(description="Who did it.")]


class MessageEdited(Fact, tag="message.edited", kw_only=True):
    """A message has another content; `data` is the message as it is now."""

    data: Message
    user_id: Annotated[UserId, Meta(description="Who did it.")]


class MessageReacted(Fact, tag="message.reacted", kw_only=True):
    """The reactions on a message changed; `data` is the message as it is now."""

    data: Message
    user_id: Annotated[UserId, Meta(description="Who did it.")]


class MessagePinned(Fact, tag="message.pinned", kw_only=True):
    """A message was pinned or unpinned; `data` is the message as it is now."""

    data: Message
    user_id: Annotated[UserId, Meta(description="Who did it.")]


FACTS: tuple[type[Fact], ...] = (
    MessageSent,
    MessageRecalled,
    MessageEdited,
    MessageReacted,
    MessagePinned,
)


def type_of(fact: type[Fact]) -> str:
    """`message.sent` of MessageSent."""
    return str(fact.__struct_config__.tag)
