"""Order in one conversation, without any I/O: messages in, the same messages out, 1, 2, 3 … each once.

Pushes may come late, twice, in any order or not at all. What cannot be released yet is held; what is missing is
named by `missing`, and whoever does the I/O pulls it with `message.history` and puts it in with `page`.

Invariants: everything up to `seq` was released, in order, once; nothing that is held is ≤ `seq`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from clients.python.natterjack.changes import changed
from schemas.events import Change
from schemas.messages import Message

WINDOW = 1_000
"""Most messages held ahead of a gap. What lies beyond is only remembered as existing, and pulled later."""
MIN_PAGE, MAX_PAGE = 20, 200
"""Bounds of what is asked for at once, whatever is missing."""
RECENT = 100
"""Messages kept after their release: a pushed change of one of them needs no question to the server."""


class Missing(NamedTuple):
    """What to pull: at most `limit` messages after `after_seq`, and the changes after `after_rev`."""

    after_seq: int
    after_rev: int
    limit: int


@dataclass(slots=True)
class Timeline:
    """State of one conversation.

    seq, rev: everything up to here was released. reads: how far each user has read.
    """

    conversation_id: str
    seq: int = 0
    rev: int = 0
    known_seq: int = 0
    known_rev: int = 0
    reads: dict[int, int] = field(default_factory=dict)
    _held: dict[int, Message] = field(default_factory=dict)
    _recent: dict[int, Message] = field(default_factory=dict)

    def add(self, message: Message) -> None:
        """Takes a message, from wherever. One that was released or is held already is a double."""
        self.known_seq = max(self.known_seq, message.seq)
        if not self.seq < message.seq <= self.seq + WINDOW:
            return
        held = self._held.get(message.seq)
        if held is None or held.rev < message.rev:  # a recalled message stays recalled
            self._held[message.seq] = message

    def head(self, seq: int, rev: int) -> None:
        """Learns how far the conversation goes."""
        self.known_seq = max(self.known_seq, seq)
        self.known_rev = max(self.known_rev, rev)

    def skip(self, seq: int) -> None:
        """Learns that messages up to here are not there for this user: cleared, or before he joined."""
        self.known_seq = max(self.known_seq, seq)
        if seq > self.seq:
            self.seq = seq
            self._held = {s: message for s, message in self._held.items() if s > seq}

    def change(self, change: Change) -> Message | None:
        """Takes a pushed change. Returns the message as it is now if it was released, and the change is the next.

        Otherwise it is only remembered as existing: `missing` then asks for it.
        """
        if change.rev <= self.rev:
            return None
        self.known_rev = max(self.known_rev, change.rev)
        message = self._recent.get(change.seq)
        if message is None or change.rev != self.rev + 1:
            return None
        self.rev = change.rev
        if message.rev >= change.rev:  # it came in this state
            return None
        self._recent[change.seq] = message = changed(message, change)
        return message

    def read(self, user_id: int, seq: int, rev: int | None) -> bool:
        """Takes a read position; `rev`: its number, if it was pushed. Returns whether it is news."""
        if rev is not None:
            self.known_rev = max(self.known_rev, rev)
            # In groups reads have no number of their own: theirs is that of the last change.
            if rev == self.rev + 1 and self.conversation_id.startswith("p_"):
                self.rev = rev
        if seq <= self.reads.get(user_id, 0):
            return False
        self.reads[user_id] = seq
        return True

    def page(
        self,
        messages: list[Message],
        changes: list[Message],
        max_seq: int,
        max_rev: int,
        upto_rev: int | None,
        first_seq: int = 1,
    ) -> list[Message]:
        """Takes a page of history or sync. Returns the changes that are new, of messages released before.

        The changes are complete up to `upto_rev`. A change of a message not yet released is that message, in its
        newest state.
        """
        self.head(max_seq, max_rev)
        self.skip(first_seq - 1)
        for message in messages:
            self.add(message)
        fresh = [change for change in changes if change.rev > self.rev]
        if upto_rev is not None:
            self.rev = max(self.rev, upto_rev)
        for change in fresh:
            self.add(change)
        released = [change for change in fresh if change.seq <= self.seq]
        for change in released:
            if change.seq in self._recent:
                self._recent[change.seq] = change
        return released

    def release(self, room: int) -> list[Message]:
        """The next messages in order, at most `room`."""
        out: list[Message] = []
        while len(out) < room and (message := self._held.pop(self.seq + 1, None)) is not None:
            self.seq += 1
            self._recent[self.seq] = message
            self._recent.pop(self.seq - RECENT, None)
            out.append(message)
        return out

    @property
    def missing(self) -> Missing | None:
        """What must be pulled before it can go on; None if nothing must."""
        if self.seq + 1 in self._held or self.seq >= self.known_seq:
            gap = 0
        else:
            gap = min(self._held, default=self.known_seq + 1) - self.seq - 1
        if gap == 0 and self.rev >= self.known_rev:
            return None
        return Missing(self.seq, self.rev, min(max(gap, MIN_PAGE), MAX_PAGE))

    @property
    def behind(self) -> bool:
        """Whether anything is known that was not released."""
        return self.seq < self.known_seq or self.rev < self.known_rev
