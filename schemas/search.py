"""Full-text search over one's own conversations, and reports to the operators: requests and replies."""

from typing import Annotated

from msgspec import Meta

from schemas.messages import Message
from schemas.types import ConversationId, Cursor, Limit, Model, MsgId, Next


class SearchMessages(Model):
    """Messages with all of these words in the conversations that one sees, newest first.

    A word is found by how it begins; in scripts without spaces (Chinese, Japanese) any part is found. Case and width do
    not matter. A message is found a moment after it was sent.
    """

    q: Annotated[str, Meta(min_length=1, max_length=200, description="Words to look for.")]
    conversation_id: Annotated[
        ConversationId | None, Meta(description="Only in this conversation.")
    ] = None
    cursor: Cursor | None = None
    limit: Limit = 50


class FoundMessages(Model):
    """One page of what was found."""

    messages: Annotated[list[Message], Meta(description="Newest first.")]
    next: Next | None


class ReportMessage(Model):
    """Shows a message to the operators, who keep its content as it is now. Again: nothing more happens."""

    msg_id: MsgId
    reason: Annotated[str, Meta(min_length=1, max_length=500, description="For people.")]
