"""What the server pushes.

On `im.v1.user.<uid>` and `im.v1.group.<gid>` an event is the very frame that clients receive.
"""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from schemas.conversations import ConversationState
from schemas.friends import Application, ApplicationId, Friend, FriendsVersion
from schemas.groups import GroupApplication, GroupInfo, GroupMember, Version
from schemas.messages import Emoji, Mention, Message, Reaction, Rev
from schemas.presence import Presence
from schemas.types import (
    ConversationId,
    GroupId,
    MembersVersion,
    Milliseconds,
    Model,
    MsgId,
    Seq,
    UserId,
)


class Event(Model):
    """Base of all pushes: `{"type": …, "data": …}` with the type below and the Struct as data."""

    type: ClassVar[str]


class Ready(Event):
    """First push on a connection: the subscriptions are live, nothing from now on is missed.

    Catch up now.
    """

    type: ClassVar[str] = "ready"
    user_id: UserId
    connection_id: Annotated[str, Meta(description="Names this connection in `Im-Conn`.")]
    heartbeat_s: Annotated[
        int,
        Meta(description="The server pings this often and closes after two without an answer."),
    ]


class MessagePushed(Message):
    """A new message.

    Sent to every device of both sides but the sending connection, which gets the ack.
    """

    type: ClassVar[str] = "message"


class Change(Event):
    """Common part of what changes a message. Of two states of it, the one with the higher `rev` holds."""

    conversation_id: ConversationId
    msg_id: MsgId
    seq: Seq
    rev: Rev
    user_id: Annotated[UserId, Meta(description="Who did it.")]


class Recalled(Change):
    """A message was taken back: nothing of its content may be shown or kept.

    Like all changes it goes to every device, the asking one too.
    """

    type: ClassVar[str] = "recall"
    timestamp: Milliseconds


class Edited(Change):
    """A message has another content and other mentions."""

    type: ClassVar[str] = "edit"
    content: str
    mentions: list[Mention]
    edited_at: Milliseconds


class Reacted(Change):
    """Somebody put an emoji on a message, or took it away; `reactions` is all that is on it now."""

    type: ClassVar[str] = "reaction"
    emoji: Emoji
    remove: bool
    reactions: list[Reaction]


class Pinned(Change):
    """A message was pinned in its conversation, or unpinned."""

    type: ClassVar[str] = "pin"
    remove: bool


class Read(Event):
    """A member has read up to here. In private conversations it goes to both sides, in groups to one's own devices."""

    type: ClassVar[str] = "read"
    conversation_id: ConversationId
    user_id: UserId
    seq: Seq
    rev: Rev


class Delivered(Event):
    """A device of a member has everything up to here."""

    type: ClassVar[str] = "delivered"
    conversation_id: ConversationId
    user_id: UserId
    seq: Seq


class ConversationChanged(ConversationState, Event):
    """A conversation was pinned, muted, cleared or given a draft. Only to one's own devices, the asking one too."""

    type: ClassVar[str] = "conversation"


class Head(Event):
    """How far a conversation is, sent 1–3 s after its last change.

    A device that knows less has missed something and pulls.
    """

    type: ClassVar[str] = "head"
    conversation_id: ConversationId
    seq: Seq
    rev: Rev


class Resync(Event):
    """Pushes may have been lost between server and bus: catch up with `message.sync`."""

    type: ClassVar[str] = "resync"


class Draining(Event):
    """The edge is going away: connect again, elsewhere. The connection closes with 1012."""

    type: ClassVar[str] = "draining"


class Kicked(Event):
    """The session has ended (log-out, revoked, password changed). Its sockets close with 4409."""

    type: ClassVar[str] = "kicked"
    session_id: str
    reason: Annotated[str, Meta(description="For people; its wording may change.")]


class GroupJoined(Event):
    """You are in this group now.

    Its events follow; what was written in between, `message.sync` brings.
    """

    type: ClassVar[str] = "group.joined"
    group_id: GroupId
    members_version: MembersVersion
    by: Annotated[UserId, Meta(description="Who did it: oneself, or who invited or accepted.")]


class GroupLeft(Event):
    """You are in this group no more. Nothing of it follows."""

    type: ClassVar[str] = "group.left"
    group_id: GroupId
    members_version: MembersVersion
    reason: Literal["left", "kicked", "dissolved"]


class GroupMembers(Event):
    """Other members of a group of yours have come or gone.

    All of one version: whoever knows the version before knows the members now.
    """

    type: ClassVar[str] = "group.members"
    group_id: GroupId
    members_version: MembersVersion
    joined: list[UserId] = []
    left: list[UserId] = []


class GroupUpdated(Event):
    """A group's settings are these now; to all its members. Greater `version` wins."""

    type: ClassVar[str] = "group.updated"
    group: GroupInfo


class GroupMemberUpdated(Event):
    """A member's role, name or mute has changed; to all members."""

    type: ClassVar[str] = "group.member"
    group_id: GroupId
    version: Version
    member: GroupMember


class GroupApplied(Event):
    """An application to a group was made, accepted or rejected; to the applicant, the owner and the admins."""

    type: ClassVar[str] = "group.application"
    application: GroupApplication


class FriendApplied(Event):
    """There is an application, new or with a new greeting; to all devices of both."""

    type: ClassVar[str] = "friend.applied"
    application: Application


class FriendRejected(Event):
    """An application was rejected; to all devices of both."""

    type: ClassVar[str] = "friend.rejected"
    application: Application


class FriendAccepted(Event):
    """There is a new friend; to all devices of both."""

    type: ClassVar[str] = "friend.accepted"
    application_id: ApplicationId
    friend: Friend
    version: FriendsVersion


class FriendUpdated(Event):
    """One has given somebody another remark, blocked or unblocked him; to one's own devices."""

    type: ClassVar[str] = "friend.updated"
    friend: Friend
    version: FriendsVersion


class FriendDeleted(Event):
    """A friendship has ended; to all devices of both."""

    type: ClassVar[str] = "friend.deleted"
    user_id: UserId
    version: FriendsVersion


class PresencePushed(Event, Presence):
    """A friend came or went, or changed his devices; to those who have subscribed to him."""

    type: ClassVar[str] = "presence"


class TypingPushed(Event):
    """Somebody is typing, or has stopped. Forget it after about six seconds without another one."""

    type: ClassVar[str] = "typing"
    conversation_id: ConversationId
    user_id: UserId
    typing: bool


EVENTS: tuple[type[Event] | type[MessagePushed], ...] = (
    Ready,
    MessagePushed,
    Recalled,
    Edited,
    Reacted,
    Pinned,
    Read,
    Delivered,
    ConversationChanged,
    Head,
    Resync,
    Draining,
    Kicked,
    GroupJoined,
    GroupLeft,
    GroupMembers,
    GroupUpdated,
    GroupMemberUpdated,
    GroupApplied,
    FriendApplied,
    FriendRejected,
    FriendAccepted,
    FriendUpdated,
    FriendDeleted,
    PresencePushed,
    TypingPushed,
)

EDGE_EVENTS = (Ready, Resync, Draining)
"""Made by the edge for its own connections; they never pass over NATS."""
