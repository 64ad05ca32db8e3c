"""Presence and typing: requests and replies of `presence`. None of it is stored in SQL."""

from typing import Annotated

from msgspec import Meta

from schemas.types import (
    ConversationId,
    GroupId,
    Milliseconds,
    Model,
    Platform,
    Token,
    UserId,
)


class Presence(Model):
    """Whether a user is on-line. Who may not know it reads that he is not."""

    user_id: UserId
    online: bool
    devices: Annotated[
        list[Platform], Meta(description="Kinds of the devices he is on-line with.")
    ] = []
    last_seen: (
        Annotated[
            Milliseconds,
            Meta(description="When his last device left; null: on-line, or not known."),
        ]
        | None
    ) = None

    at: Annotated[
        Milliseconds,
        Meta(description="When it was so: forget one that is older than another you have."),
    ] = 0


class SubscribePresence(Model):
    """Asks for the presence of friends, now and, as `presence` pushes to all one's devices, later.

    It lasts `renew_s` twice: ask again in that time, and whenever `ready` or `resync` comes.
    """

    user_ids: Annotated[
        list[UserId], Meta(max_length=500, description="Who is no friend is passed over.")
    ]
    remove: Annotated[bool, Meta(description="Ends the subscriptions instead.")] = False


class Presences(Model):
    """The friends among those who were asked for, in that order."""

    users: list[Presence]
    renew_s: Annotated[int, Meta(description="Ask again after so many seconds.")]


class SendTyping(Model):
    """Says that one is typing, to exactly one of `receiver_id`, `group_id`, `conversation_id`.

    Never stored. Send it at most every few seconds; receivers forget it after about six.
    """

    receiver_id: UserId | None = None
    group_id: GroupId | None = None
    conversation_id: ConversationId | None = None
    typing: Annotated[bool, Meta(description="False: one has stopped.")] = True


class Connection(Model):
    """A client's connection, as its edge reports it."""

    user_id: UserId
    connection_id: Token
    session_id: Token


class ReportPresence(Model):
    """What has changed on an edge since its last report; empty, it is a sign of life.

    An edge that does not hear `known` reports all its connections again, in as many reports as it
    takes, under a new name: the first with `begins`, the last with the name it had before.
    """

    edge: Token
    joined: list[Connection] = []
    left: list[Connection] = []
    begins: bool = False
    replaces: Token | None = None
    ends: Annotated[bool, Meta(description="The edge goes away with all its connections.")] = False


class PresenceReported(Model):
    """The report was taken."""

    known: Annotated[bool, Meta(description="False: report everything again.")]
