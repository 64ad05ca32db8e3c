"""Order in one conversation, without any I/O: messages in, the same messages out, 1, 2, 3 … each once.

Pushes may come late, twice, in any order or not at all. What cannot be released yet is held; what is missing is
named by `missing`, and whoever does the I/O pulls it with `message.history` and puts it in with `page`.

Invariants: everything up to `seq` was released, in order, once; nothing that is held is ≤ `seq`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.messages import Message

WINDOW = 1_000
"""Most messages held ahead of a gap. What lies beyond is only remembered as existing, and pulled later."""
MIN_PAGE, MAX_PAGE = 20, 200
"""Bounds of what is asked for at once, whatever is missing."""


class Missing(NamedTuple):
    """What to pull: at most `limit` messages after `after_seq`, and the changes after `after_rev`."""

    after_seq: int
    after_rev: int
    limit: int


@dataclass(slots=True)
class Timeline:
    """State of one conversation. `seq`, `rev`: everything up to here was released."""

    conversation_id: str
    seq: int = 0
    rev: int = 0
    known_seq: int = 0
    known_rev: int = 0
    _held: dict[int, Message] = field(default_factory=dict)

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

    def page(
        self, messages: list[Message], changes: list[Message], max_seq: int, max_rev: int
    ) -> list[Message]:
        """Takes a page of history or sync. Returns the changes that are new, of messages released before.

        A list of changes is complete when it reaches `max_rev`, since the last change is in it; an empty one says
        that nothing is newer. A change of a message not yet released is that message, in its newest state.
        """
        self.head(max_seq, max_rev)
        for message in messages:
            self.add(message)
        fresh = [change for change in changes if change.rev > self.rev]
        fresh.sort(key=lambda change: change.rev)
        self.rev = max(self.rev, fresh[-1].rev if fresh else 0 if changes else max_rev)
        for change in fresh:
            self.add(change)
        return [change for change in fresh if change.seq <= self.seq]

    def release(self, room: int) -> list[Message]:
        """The next messages in order, at most `room`."""
        out: list[Message] = []
        while len(out) < room and (message := self._held.pop(self.seq + 1, None)) is not None:
            self.seq += 1
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
