"""What one user sees of a conversation: its newest numbers, and which of its messages are there for him."""

from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from functions.history.span import Bounds
from shared.errors import AppError, Forbidden, NotMember
from shared.ids import members_of_private


class Head(NamedTuple):
    """A conversation's newest numbers; all 0 if it has no message yet. `message_rev`: `rev` without reads."""

    seq: int = 0
    rev: int = 0
    message_rev: int = 0


class Mine(NamedTuple):
    """A user's own row of a conversation. He sees `from_seq` < seq ≤ `until_seq`, but for what he has cleared."""

    read_seq: int = 0
    delivered_seq: int = 0
    from_seq: int = 0
    until_seq: int | None = None
    cleared_seq: int = 0

    @property
    def low(self) -> int:
        """Messages up to here are not there for him."""
        return max(self.from_seq, self.cleared_seq)

    def upto(self, seq: int) -> int:
        """The newest message that is there for him if the conversation's is `seq`."""
        return seq if self.until_seq is None else min(seq, self.until_seq)

    def sees(self, seq: int) -> bool:
        """Whether a message is there for him."""
        return self.low < seq <= self.upto(seq)

    def narrow(self, bounds: Bounds) -> Bounds:
        """The bounds without what is not there for him."""
        after, before, limit = bounds
        if after is not None:
            after = max(after, self.low)
        if self.until_seq is not None:
            before = min(self.until_seq + 1, self.until_seq + 1 if before is None else before)
        return Bounds(after, before, limit)


class View(NamedTuple):
    """A conversation as one of its members sees it."""

    head: Head
    mine: Mine

    def at_least(self, seq: int) -> "View":
        """With a message of which SQL may not know yet."""
        return self if seq <= self.head.seq else self._replace(head=self.head._replace(seq=seq))


class Views(Protocol):
    """Knows what users see of conversations."""

    def view(self, user_id: int, conversation_id: str) -> Awaitable[View | None]:
        """None if the user has no such conversation (yet). Raises: Unavailable."""


def not_mine(conversation_id: str) -> AppError:
    """What he hears who asks for a conversation that is not his."""
    if conversation_id.startswith("g_"):
        return NotMember("you are not in this group", field="conversation_id")
    return Forbidden("not your conversation", field="conversation_id")


def is_private_of(user_id: int, conversation_id: str) -> bool:
    """Whether it is a private conversation of this user, by its name alone."""
    return user_id in (members_of_private(conversation_id) or ())


def check_private(user_id: int, conversation_id: str) -> None:
    """Refuses private conversations of others by their name alone. Raises: Forbidden."""
    if conversation_id.startswith("p_") and not is_private_of(user_id, conversation_id):
        raise not_mine(conversation_id)


def known(view: View | None, conversation_id: str) -> View:
    """The view of a member. A private conversation without a message has no row, and is its members' all the same.

    Raises: NotMember if it is a group and the user was never in it.
    """
    if view is None:
        if not conversation_id.startswith("p_"):
            raise not_mine(conversation_id)
        return View(Head(), Mine())
    return view
