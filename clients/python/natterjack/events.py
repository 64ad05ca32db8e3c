"""What `Client.events()` yields."""

from dataclasses import dataclass

import msgspec

from schemas.conversations import ConversationState
from schemas.messages import Message
from schemas.presence import Presence


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """The next message of its conversation: `seq` 1, 2, 3 … each once. One's own messages are among them."""

    message: Message


@dataclass(frozen=True, slots=True)
class MessageChanged:
    """A message that came earlier was recalled, edited, pinned …; this is what it is now (`message.rev`)."""

    message: Message


@dataclass(frozen=True, slots=True)
class ReadMoved:
    """A member has read up to `seq`, on any of his devices. Oneself is a member too."""

    conversation_id: str
    user_id: int
    seq: int


@dataclass(frozen=True, slots=True)
class ConversationUpdated:
    """Pinned, muted, given a draft or cleared, on any of one's own devices; this is what it is now."""

    state: ConversationState


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A friend one watches (`Client.presence`) came, went or changed his devices."""

    presence: Presence


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody is typing, or has stopped; to be forgotten after six seconds."""

    conversation_id: str
    user_id: int
    typing: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """Any other push, as it came: `friend.*`, `group.*` …. These are not repeated when they get lost."""

    type: str
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is up; what was missed follows as ordinary events."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket is down, for the reason given; the client connects again by itself."""

    reason: str


Event = (
    MessageReceived
    | MessageChanged
    | ReadMoved
    | ConversationUpdated
    | PresenceChanged
    | Typing
    | Pushed
    | Connected
    | Disconnected
)
