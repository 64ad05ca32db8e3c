"""Records of the log `im.requests`: functions append them, the timeline applies them.

The key is the conversation. They are read for as long as the log is kept, by later versions too:
fields are only added, with defaults.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.messages import Emoji, Mentions, MsgType, Origin
from schemas.types import (
    MAX_CONTENT,
    ClientMsgId,
    ConversationId,
    Extra,
    GroupId,
    MembersVersion,
    Model,
    MsgId,
    Seq,
    Token,
    UserId,
)


class Request(Model, tag_field="type", kw_only=True):
    """Common part: who asked, when it was accepted, where the answer goes."""

    conversation_id: ConversationId
    user_id: UserId
    at: Annotated[
        int,
        Meta(
            description="Accept time of the function in Unix ms; informative. "
            "What is decided by time uses the log's own time."
        ),
    ]
    reply: Annotated[str, Meta(description="Inbox of the asker; empty: nobody waits.")] = ""
    conn: Annotated[
        str,
        Meta(description="Connection that sent it (`Im-Conn`): it gets the ack, not the push."),
    ] = ""
    trace: Annotated[str, Meta(description="W3C `traceparent` of the asker.")] = ""


class SendRequested(Request, tag="message.send", kw_only=True):
    """A checked `message.send`."""

    client_msg_id: ClientMsgId
    msg_type: MsgType
    content: Annotated[str, Meta(max_length=MAX_CONTENT)]
    receiver_id: UserId | None = None
    group_id: GroupId | None = None
    reply_to: MsgId | None = None
    mentions: Mentions = []
    file_id: Token | None = None
    extra: Extra = msgspec.UNSET
    forward: Origin | None = None
    forward_of: Annotated[
        MsgId | None,
        Meta(
            description="What the command named. Without `forward` it is not there for the sender: "
            "only a repeat of what was accepted before is answered then."
        ),
    ] = None


class SystemRequested(Request, tag="message.system", kw_only=True):
    """A change of a group, as function `groups` has committed it.

    It becomes a message of `msg_type` 0, whose `seq` is the border of what those who came or went may see. `user_id` is
    who did it.
    """

    client_msg_id: Annotated[
        ClientMsgId, Meta(description="Id of the change; a repeat of the record changes nothing.")
    ]
    content: Annotated[
        str, Meta(max_length=MAX_CONTENT, description='JSON: `{"kind": "group.joined", …}`.')
    ]
    joined: Annotated[
        list[UserId], Meta(description="They see messages from this one on, or all.")
    ] = []
    left: Annotated[list[UserId], Meta(description="They see messages up to this one.")] = []
    members_version: MembersVersion
    sees_all: Annotated[
        bool, Meta(description="Whether those who joined see what was written before as well.")
    ] = False
    answer: Annotated[
        msgspec.Raw | msgspec.UnsetType,
        Meta(description="What `reply` gets, as JSON, once the borders are stored."),
    ] = msgspec.UNSET


class RecallRequested(Request, tag="message.recall", kw_only=True):
    """A checked `message.recall`. Whether it is in time, the log's time decides."""

    msg_id: MsgId
    window_ms: Annotated[int, Meta(ge=0, description="Longest age at which a sender may.")]
    moderator: Annotated[
        bool, Meta(description="Owner or admin of the group: may, whosesoever it is and whenever.")
    ] = False


class EditRequested(Request, tag="message.edit", kw_only=True):
    """A checked `message.edit`."""

    msg_id: MsgId
    content: Annotated[str, Meta(max_length=MAX_CONTENT)]
    mentions: Mentions = []


class ReactRequested(Request, tag="message.react", kw_only=True):
    """A checked `message.react`."""

    msg_id: MsgId
    emoji: Emoji
    remove: bool = False


class PinRequested(Request, tag="message.pin", kw_only=True):
    """A checked `message.pin`."""

    msg_id: MsgId
    remove: bool = False


class ReadRequested(Request, tag="message.read", kw_only=True):
    """A checked `message.read`."""

    seq: Seq


class DeliveredRequested(Request, tag="message.delivered", kw_only=True):
    """A checked `message.delivered`."""

    seq: Seq


AnyRequest = (
    SendRequested
    | RecallRequested
    | EditRequested
    | ReactRequested
    | PinRequested
    | ReadRequested
    | DeliveredRequested
    | SystemRequested
)
"""Union of all record types."""
