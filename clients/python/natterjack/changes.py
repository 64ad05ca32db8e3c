"""What a pushed change makes of a message that the client has."""

from msgspec import UNSET
from msgspec.structs import replace

from schemas.events import Change, Edited, Pinned, Reacted, Recalled
from schemas.messages import Message

CHANGES: dict[str, type[Change]] = {
    event.type: event for event in (Recalled, Edited, Reacted, Pinned)
}
"""Pushes that change a message, by type."""


def changed(message: Message, change: Change) -> Message:
    """The message after a change that follows on all it has seen."""
    match change:
        case Recalled():
            return replace(
                message,
                status=1,
                content="",
                rev=change.rev,
                reply_to=None,
                mentions=[],
                file_id=None,
                extra=UNSET,
                forward=None,
                reactions=[],
                edited_at=None,
                pinned=False,
            )
        case Edited():
            return replace(
                message,
                content=change.content,
                mentions=change.mentions,
                edited_at=change.edited_at,
                rev=change.rev,
            )
        case Reacted():
            return replace(message, reactions=change.reactions, rev=change.rev)
        case Pinned():
            return replace(message, pinned=not change.remove, rev=change.rev)
    raise ValueError(f"a change that this client does not know: {type(change).__name__}")
