"""What an own message looks like once it is acked: the sending connection gets the ack, and no push."""

import msgspec

from schemas.contents import TEXT, FileContent
from schemas.messages import Message, MessageAck, SendMessage


def message_of(command: SendMessage, ack: MessageAck, sender_id: int) -> Message:
    """The message as everybody else sees it."""
    return Message(
        ack.msg_id,
        ack.conversation_id,
        sender_id,
        command.msg_type,
        command.content,
        ack.timestamp,
        ack.seq,
        ack.client_msg_id,
        status=0,
        receiver_id=_receiver(ack.conversation_id, sender_id),
        group_id=_group(ack.conversation_id),
        reply_to=command.reply_to,
        mentions=command.mentions,
        file_id=_file(command),
        extra=command.extra,
    )


def _file(command: SendMessage) -> str | None:
    """The file of an image and its like stands in their content."""
    if command.msg_type == TEXT:
        return command.file_id
    return msgspec.json.decode(command.content, type=FileContent).file_id


def _receiver(conversation_id: str, sender_id: int) -> int | None:
    """The other member of `p_<lower>_<higher>`; None in a group."""
    kind, *members = conversation_id.split("_")
    if kind != "p":
        return None
    lower, higher = (int(member) for member in members)
    return higher if lower == sender_id else lower


def _group(conversation_id: str) -> int | None:
    """The number in `g_<gid>`; None in a private conversation."""
    kind, _, number = conversation_id.partition("_")
    return int(number) if kind == "g" else None
