"""What a partition has applied and not stored yet."""

from collections import defaultdict
from typing import Any, NamedTuple

from functions.timeline.core import Accepted, Dead, Effect, Progress
from shared.ids import Private

Row = tuple[Any, ...]


class Traced(NamedTuple):
    """A sampled message that is to be stored: its identity, and the traceparent of the step before."""

    msg_id: str
    conversation_id: str
    month: int
    traceparent: str


class Pending:
    """The rows of one partition's next COMMIT, which moves `log_progress` from `old` to `new`."""

    def __init__(self, old: Progress) -> None:
        self.old = old
        self.new = old
        self.records = 0
        self.messages: defaultdict[int, list[Row]] = defaultdict(list)
        """Rows of `message_<month>` by month."""
        self.keys: list[Row] = []
        self.heads: dict[str, Row] = {}
        """Rows of `conversation` by id; the newest state of each."""
        self.members: dict[str, Private] = {}
        """Of the same conversations."""
        self.months: list[Row] = []
        self.memberships: list[Row] = []
        self.dead: list[Dead] = []
        self.traced: list[Traced] = []
        """Sampled messages among them."""

    def add(self, effects: list[Effect], progress: Progress) -> None:
        """Takes over what a batch became; `progress` is the partition's after it."""
        self.records += len(effects)
        self.new = progress
        for effect in effects:
            if type(effect) is Accepted:
                self._add_message(effect)
            elif type(effect) is Dead:
                self.dead.append(effect)

    def _add_message(self, effect: Accepted) -> None:
        conversation_id = effect.request.conversation_id
        self.messages[effect.month].append(effect.row)
        self.keys.append(effect.key_row)
        self.heads[conversation_id] = (conversation_id, effect.seq, effect.rev, effect.ms)
        self.members[conversation_id] = effect.members
        if effect.opens_month:
            self.months.append((conversation_id, effect.month, effect.seq))
        if effect.seq == 1:
            self.memberships += [(user_id, conversation_id) for user_id in effect.members]

    def drop(self, ids: set[int]) -> None:
        """Leaves out the rows and keys of these messages."""
        for month, rows in self.messages.items():
            self.messages[month] = [row for row in rows if row[0] not in ids]
        self.keys = [row for row in self.keys if row[2] not in ids]

    def rows_of(self, ids: set[int]) -> list[Row]:
        """The rows of these messages."""
        return [row for rows in self.messages.values() for row in rows if row[0] in ids]
