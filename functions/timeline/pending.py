"""What a partition has applied and not stored yet."""

from collections import defaultdict
from typing import NamedTuple

from functions.timeline.changes import mention_rows
from functions.timeline.state import (
    Accepted,
    Changed,
    ConversationRow,
    Dead,
    Effect,
    Moved,
    Place,
    Progress,
    Row,
    Unchanged,
    Write,
)
from schemas.records import SystemRequested


class Traced(NamedTuple):
    """A sampled message that is to be stored: its identity, and the traceparent of the step before."""

    msg_id: str
    conversation_id: str
    month: int
    traceparent: str


class Answered(NamedTuple):
    """An ack that waits for the COMMIT."""

    reply: str
    ack: bytes


class Pending:
    """The rows of one partition's next COMMIT, which moves `log_progress` from `old` to `new`."""

    def __init__(self, old: Progress) -> None:
        self.old = old
        self.new = old
        self.records = 0
        self.messages: defaultdict[int, list[Row]] = defaultdict(list)
        """Rows of `message_<month>` by month."""
        self.changes: defaultdict[int, dict[int, Row]] = defaultdict(dict)
        """Whole rows that replace what is there, by month and id; after the new ones."""
        self.keys: list[Row] = []
        self.heads: dict[str, ConversationRow] = {}
        """By id; the newest state of each."""
        self.months: list[Row] = []
        self.memberships: list[Row] = []
        self.positions: dict[Place, Row] = {}
        """First columns of `user_conversation`."""
        self.joins: dict[Place, Row] = {}
        """First columns of `user_conversation`, up to until_seq; before the positions."""
        self.leaves: dict[Place, Row] = {}
        """The same; of rows that are there only until_seq changes. After the joins."""
        self.removals: defaultdict[str, dict[Row, None]] = defaultdict(dict)
        """By table: what keys begin with. These go before the additions come."""
        self.additions: defaultdict[str, dict[Row, Row]] = defaultdict(dict)
        """By table: rows by key."""
        self.answers: list[Answered] = []
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
            elif isinstance(effect, Changed | Moved | Unchanged):
                if effect.request.reply:
                    self.answers.append(Answered(effect.request.reply, effect.ack))
                if type(effect) is Changed:
                    self._add_change(effect)
                elif type(effect) is Moved:
                    self._add_position(effect)

    def _add_message(self, effect: Accepted) -> None:
        request = effect.request
        conversation_id = request.conversation_id
        self.messages[effect.month].append(effect.row)
        self.keys.append(effect.key_row)
        self.heads[conversation_id] = effect.head
        if effect.opens_month:
            self.months.append((conversation_id, effect.month, effect.seq))
        if effect.seq == 1 and effect.members is not None:
            self.memberships += [(user_id, conversation_id) for user_id in effect.members]
        if isinstance(request, SystemRequested):
            if request.reply:
                self.answers.append(Answered(request.reply, effect.ack))
            self._add_borders(request, effect)
        elif request.mentions:
            rows = mention_rows(request.mentions, conversation_id, effect.seq)
            self.additions["message_mention"].update({row: row for row in rows})

    def _add_borders(self, request: SystemRequested, effect: Accepted) -> None:
        """Who came sees messages from this one on, or all; who went sees them up to this one."""
        conversation_id, before = request.conversation_id, effect.seq - 1
        from_seq = 0 if request.sees_all else before
        for user_id in request.joined:
            place = (user_id, conversation_id)
            # What was written before is not unread for him.
            self.joins[place] = (*place, before, effect.head.max_rev, before, from_seq, None)
            self.leaves.pop(place, None)
            self.positions.pop(place, None)
        for user_id in request.left:
            place = (user_id, conversation_id)
            join = self.joins.get(place)
            if join is not None:
                self.joins[place] = (*join[:-1], effect.seq)
            else:
                # If there is no row, which must not be, he sees nothing.
                self.leaves[place] = (*place, 0, 0, 0, effect.seq, effect.seq)

    def _add_change(self, effect: Changed) -> None:
        conversation_id = effect.request.conversation_id
        self.changes[effect.month][effect.msg_id] = effect.row
        self.heads[conversation_id] = effect.head
        for write in effect.writes:
            self._write(write)

    def _add_position(self, effect: Moved) -> None:
        conversation_id = effect.request.conversation_id
        self.positions[effect.request.user_id, conversation_id] = effect.row
        if effect.head is not None:
            self.heads[conversation_id] = effect.head

    def _write(self, write: Write) -> None:
        table, key, row = write
        if row is not None:
            self.additions[table][key] = row
            return
        self.removals[table][key] = None
        rows = self.additions[table]
        for added in [added for added in rows if added[: len(key)] == key]:
            del rows[added]

    def drop(self, ids: set[int]) -> None:
        """Leaves out the rows and keys of these messages, and what has changed them."""
        for month, rows in self.messages.items():
            self.messages[month] = [row for row in rows if row[0] not in ids]
        for changed in self.changes.values():
            for msg_id in ids & changed.keys():
                del changed[msg_id]
        self.keys = [row for row in self.keys if row[2] not in ids]

    def rows_of(self, ids: set[int]) -> list[Row]:
        """The rows of these messages."""
        return [row for rows in self.messages.values() for row in rows if row[0] in ids]
