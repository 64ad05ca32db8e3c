"""Groups of an edge against a model: control events late, in any order, lost; answers late, old, missing."""

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.groups import ASK_AGAIN, MOST_HELD, Group, Groups, User
from schemas.events import GroupMembers
from schemas.internal import Among, Membership
from shared.bus import pack_headers
from shared.function import frame

USERS = range(1, 4)
GROUPS = (1,)


class Connection:
    """Notes what it gets, without the frame's head."""

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id
        self.session_id = "s"
        self.got: list[dict[str, Any]] = []

    def live(self) -> None: ...

    def push(self, wire: bytes) -> None:
        self.got.append(msgspec.json.decode(wire[wire.index(b"{") :]))

    def close(self, code: int, reason: str) -> None: ...


class Edge:
    """A process of its own, as `Groups` sees it."""

    def __init__(self) -> None:
        self.users: dict[int, User] = {}
        self.groups = Groups(self, self.users.get)
        self.subscribed: dict[int, Group] = {}
        self.questions: list[tuple[Group, list[int]]] = []
        self.later: list[Group] = []
        self.resynced: list[int] = []
        self._sid = 0

    def listen(self, group: Group) -> int:
        self._sid += 1
        assert group.id not in {g.id for g in self.subscribed.values()}, "subscribed twice"
        self.subscribed[self._sid] = group
        return self._sid

    def unlisten(self, sid: int) -> None:
        del self.subscribed[sid]

    def ask(self, group: Group, user_ids: list[int]) -> None:
        assert len(user_ids) == len(set(user_ids)) > 0
        assert group not in [g for g, _ in self.questions], "one question at a time"
        self.questions.append((group, user_ids))

    def ask_later(self, group: Group) -> None:
        self.later.append(group)

    def resync(self, users: Iterable[User]) -> None:
        self.resynced += [user.id for user in users]

    def connect(self, user_id: int) -> Connection:
        user = self.users.setdefault(user_id, User(user_id))
        connection = Connection(f"{user_id}-{len(user.members)}")
        user.members[connection.connection_id] = connection
        return connection

    def disconnect(self, user_id: int) -> None:
        user = self.users.pop(user_id)
        user.members.clear()
        self.groups.gone(user)

    def publish(self, group_id: int, payload: bytes, version: int, conn: str = "") -> None:
        headers = {"Im-Members": str(version)} | ({"Im-Conn": conn} if conn else {})
        for group in list(self.subscribed.values()):
            if group.id == group_id:
                group("", "", payload, pack_headers(headers))


def event(n: int) -> bytes:
    return b'{"type":"message","data":{"n":%d}}' % n


def numbers(connection: Connection) -> list[int]:
    return [f["data"]["n"] for f in connection.got if f["type"] == "message"]


class AgainstModel(RuleBasedStateMachine):
    """The truth, and what is on its way to one edge."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = Edge()
        self.members: dict[int, set[int]] = {g: {1, 2} for g in GROUPS}
        self.history: dict[int, list[set[int]]] = {g: [set(), {1, 2}] for g in GROUPS}
        self.applied = dict.fromkeys(GROUPS, 1)
        """Version as of which the timeline publishes."""
        self.control: list[tuple[int, Any]] = []
        self.queue: list[tuple[int, int, int]] = []
        """Messages on their way: group, number, version."""
        self.reads: list[tuple[User, list[Membership]]] = []
        self.answers: list[tuple[Group, Among]] = []
        self.connections: dict[int, Connection] = {}
        self.removed: dict[tuple[int, int], int] = {}
        """The newest `left` that a user who is here heard of a group."""
        self.published: dict[int, tuple[int, int]] = {}
        self.last = 0
        for user_id in (1, 3):
            self._connect(user_id)
        self._finish_reads()

    def version(self, group_id: int) -> int:
        return len(self.history[group_id]) - 1

    def _connect(self, user_id: int) -> None:
        self.connections[user_id] = self.edge.connect(user_id)
        found = [Membership(g, self.version(g)) for g in GROUPS if user_id in self.members[g]]
        self.reads.append((self.edge.users[user_id], found))

    def _finish_reads(self) -> None:
        while self.reads:
            user, found = self.reads.pop(0)
            if not user.gone:
                self.edge.groups.read(user, found)

    # --- what happens

    @rule(user_id=st.sampled_from(USERS))
    def connect_or_go(self, user_id: int) -> None:
        if user_id in self.connections:
            self.edge.disconnect(user_id)
            del self.connections[user_id]
            self.removed = {(u, g): v for (u, g), v in self.removed.items() if u != user_id}
            self.control = [(u, c) for u, c in self.control if u != user_id]
        else:
            self._connect(user_id)

    @precondition(lambda self: self.reads)
    @rule()
    def read(self) -> None:
        user, found = self.reads.pop(0)
        if not user.gone:
            self.edge.groups.read(user, found)

    @rule(
        group_id=st.sampled_from(GROUPS),
        user_id=st.sampled_from(USERS),
        lost=st.booleans(),
    )
    def change(self, group_id: int, user_id: int, lost: bool) -> None:
        members = self.members[group_id]
        joins = user_id not in members
        (members.add if joins else members.remove)(user_id)
        self.history[group_id].append(set(members))
        version = self.version(group_id)
        if user_id in self.connections and (joins or not lost):
            self.control.append((user_id, (group_id, version, joins)))
        if not lost:
            ids = [user_id]
            told = GroupMembers(group_id, version, *((ids, []) if joins else ([], ids)))
            self.control.append((0, told))

    @rule(group_id=st.sampled_from(GROUPS))
    def timeline_catches_up(self, group_id: int) -> None:
        self.applied[group_id] = self.version(group_id)

    @rule(group_id=st.sampled_from(GROUPS))
    def write(self, group_id: int) -> None:
        self.last += 1
        self.published[self.last] = (group_id, self.applied[group_id])
        self.queue.append((group_id, self.last, self.applied[group_id]))

    @precondition(lambda self: self.queue)
    @rule()
    def message_arrives(self) -> None:
        group_id, n, version = self.queue.pop(0)
        self.edge.publish(group_id, event(n), version)

    @precondition(lambda self: self.control)
    @rule(data=st.data())
    def control_event_arrives(self, data: st.DataObject) -> None:
        self._control(data.draw(st.integers(0, len(self.control) - 1)))

    def _control(self, index: int) -> None:
        user_id, what = self.control.pop(index)
        if isinstance(what, GroupMembers):
            payload = frame(what, what.type)
            self.edge.publish(what.group_id, payload, what.members_version)
            return
        group_id, version, joins = what
        user = self.edge.users[user_id]
        if joins:
            self.edge.groups.joined(user, group_id, version)
        else:
            self.edge.groups.left(user, group_id, version)
            heard = self.removed.get((user_id, group_id), 0)
            self.removed[user_id, group_id] = max(heard, version)

    @precondition(lambda self: self.edge.questions)
    @rule()
    def groups_answers(self) -> None:
        group, asked = self.edge.questions[0]
        members = self.members[group.id]
        self.answers.append(
            (group, Among(self.version(group.id), [u for u in asked if u in members]))
        )
        del self.edge.questions[0]

    @precondition(lambda self: self.answers)
    @rule(lost=st.booleans())
    def answer_arrives(self, lost: bool) -> None:
        group, among = self.answers.pop(0)
        self.edge.groups.answered(group, None if lost else among)

    @precondition(lambda self: self.edge.later)
    @rule()
    def asks_again(self) -> None:
        self.edge.groups.ask_again(self.edge.later.pop(0))

    # --- what must hold

    @invariant()
    def references_agree(self) -> None:
        edge = self.edge
        assert {g.id for g in edge.subscribed.values()} == {g.id for g in edge.groups}
        for group in edge.groups:
            assert group.users or group.doubt is not None, "a subscription for nobody"
            assert len(group.users) == len(set(group.users))
            assert all(group in user.groups and not user.gone for user in group.users)
        for user in edge.users.values():
            assert len(user.groups) == len({g.id for g in user.groups})
            assert all(user in group.users for group in user.groups)

    @invariant()
    def nobody_gets_what_is_not_for_him(self) -> None:
        for user_id, connection in self.connections.items():
            got = numbers(connection)
            assert got == sorted(set(got), key=got.index), "doubled"
            for group_id in GROUPS:
                mine = [n for n in got if self.published[n][0] == group_id]
                assert mine == sorted(mine), "out of order"
            for n in got:
                group_id, version = self.published[n]
                assert any(user_id in m for m in self.history[group_id][version:])
        for (user_id, group_id), left in self.removed.items():
            if group_id in {g.id for g in self.edge.users[user_id].groups}:
                assert any(user_id in m for m in self.history[group_id][left:]), "he was removed"

    def teardown(self) -> None:
        """In the end everybody who is a member gets the next message, once, and nobody else."""
        for _ in range(20):
            self._finish_reads()
            while self.control:
                self._control(0)
            while self.queue:
                self.message_arrives()
            while self.edge.questions:
                self.groups_answers()
            while self.answers:
                self.edge.groups.answered(*self.answers.pop(0))
            while self.edge.later:
                self.asks_again()
        assert not any(group.doubt for group in self.edge.groups)
        for group_id in GROUPS:
            self.timeline_catches_up(group_id)
            self.write(group_id)
            n = self.last
            self.message_arrives()
            while self.edge.questions:
                self.groups_answers()
                self.edge.groups.answered(*self.answers.pop(0))
            got = {u for u, c in self.connections.items() if n in numbers(c)}
            assert got == self.members[group_id] & self.connections.keys()
        self.nobody_gets_what_is_not_for_him()
        for user_id in list(self.connections):
            self.edge.disconnect(user_id)
        assert self.edge.subscribed == {}


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(
    max_examples=100, phases=[Phase.reuse, Phase.generate], stateful_step_count=60, deadline=None
)


def two_members() -> tuple[Edge, Connection, Connection]:
    edge = Edge()
    one, two = edge.connect(1), edge.connect(2)
    for user in edge.users.values():
        edge.groups.read(user, [Membership(7, 3)])
    return edge, one, two


def test_who_was_removed_unseen_gets_nothing_and_nobody_else_misses_anything() -> None:
    edge, one, two = two_members()
    edge.publish(7, event(1), 3)
    edge.publish(7, event(2), 4)
    edge.publish(7, event(3), 3)
    ((group, asked),) = edge.questions
    assert (asked, numbers(one), numbers(two)) == ([1, 2], [1], [1])
    edge.groups.answered(group, Among(4, [2]))
    assert (numbers(one), numbers(two)) == ([1], [1, 2, 3])
    assert one.got == one.got[:1]


def test_what_was_written_before_he_joined_is_not_for_him() -> None:
    edge, one, _ = two_members()
    new = edge.connect(9)
    edge.groups.joined(edge.users[9], 7, 4)
    edge.publish(7, event(1), 3)
    told = GroupMembers(7, 4, joined=[9])
    edge.publish(7, frame(told, told.type), 4)
    edge.publish(7, event(2), 3)
    edge.publish(7, event(3), 4)
    assert (numbers(one), numbers(new)) == ([1, 2, 3], [3])
    assert edge.questions == []


def test_the_sending_connection_is_left_out_and_the_rest_get_the_same_bytes() -> None:
    edge, one, two = two_members()
    second = edge.connect(1)
    edge.publish(7, event(1), 3, conn=one.connection_id)
    assert (numbers(one), numbers(second), numbers(two)) == ([], [1], [1])


def test_too_much_that_waits_is_dropped_and_the_members_told() -> None:
    edge, one, two = two_members()
    big = b'{"type":"message","data":{"n":1,"content":"%b"}}' % (b"x" * (MOST_HELD // 2))
    for _ in range(3):
        edge.publish(7, big, 4)
    ((group, _),) = edge.questions
    edge.groups.answered(group, Among(4, [1]))
    assert one.got == two.got == []
    assert edge.resynced == [1]
    edge.publish(7, event(2), 4)
    assert (numbers(one), numbers(two)) == ([2], [])


def test_an_answer_older_than_the_event_is_not_taken_until_it_stays_so() -> None:
    edge, one, two = two_members()
    edge.publish(7, event(1), 9)
    for _ in range(ASK_AGAIN):
        group, _ = edge.questions.pop()
        edge.groups.answered(group, Among(4, [1]))
        assert numbers(one) == []
        edge.groups.ask_again(edge.later.pop())
    group, _ = edge.questions.pop()
    edge.groups.answered(group, Among(4, [1]))
    assert (numbers(one), numbers(two)) == ([1], [])


def test_what_names_no_version_is_for_those_who_are_members_now() -> None:
    edge, one, _ = two_members()
    new = edge.connect(9)
    edge.groups.joined(edge.users[9], 7, 4)
    for group in edge.subscribed.values():
        group("", "", event(1), b"")
    assert (numbers(one), numbers(new)) == ([1], [1])


def in_group(edge: Edge, user_id: int) -> bool:
    return any(group.id == 7 for group in edge.users[user_id].groups)


def answer(edge: Edge, version: int, *members: int) -> None:
    group, _ = edge.questions.pop()
    edge.groups.answered(group, Among(version, list(members)))


def test_the_newest_control_event_wins() -> None:
    edge, _, _ = two_members()
    edge.groups.left(edge.users[1], 7, 6)
    edge.groups.joined(edge.users[1], 7, 5)
    assert not in_group(edge, 1)
    edge.groups.joined(edge.users[1], 7, 8)
    edge.groups.left(edge.users[1], 7, 7)
    assert in_group(edge, 1)
    assert edge.questions == []


def test_left_of_a_version_that_the_list_knows_is_asked_about() -> None:
    edge, one, _ = two_members()
    edge.groups.left(edge.users[1], 7, 2)
    edge.publish(7, event(1), 3)
    assert numbers(one) == []
    answer(edge, 3, 1, 2)
    assert numbers(one) == [1], "he was back before we came"


def test_an_answer_does_not_undo_a_newer_control_event() -> None:
    edge, one, _ = two_members()
    edge.publish(7, event(1), 4)
    edge.groups.left(edge.users[1], 7, 5)
    answer(edge, 4, 1, 2)
    assert numbers(one) == []
    assert not in_group(edge, 1)


def test_a_join_that_the_list_should_know_is_asked_about() -> None:
    edge, _, _ = two_members()
    new = edge.connect(9)
    edge.groups.joined(edge.users[9], 7, 2)
    assert not in_group(edge, 9)
    edge.publish(7, event(1), 3)
    answer(edge, 3, 1, 2, 9)
    assert numbers(new) == [1]


def test_a_snapshot_older_than_a_control_event() -> None:
    edge, _, _ = two_members()
    new = edge.connect(9)
    edge.groups.left(edge.users[9], 7, 5)
    edge.groups.read(edge.users[9], [Membership(7, 4)])
    edge.publish(7, event(1), 3)
    assert numbers(new) == []
    other = edge.connect(8)
    edge.groups.joined(edge.users[8], 7, 5)
    edge.groups.read(edge.users[8], [])
    edge.publish(7, event(2), 5)
    answer(edge, 5, 1, 2, 8)
    assert numbers(other) == [2], "he joined when it was on its way already"


def test_a_snapshot_newer_than_the_list_is_asked_about() -> None:
    edge, _, _ = two_members()
    new = edge.connect(9)
    edge.groups.read(edge.users[9], [Membership(7, 5)])
    stale = GroupMembers(7, 4, left=[9])
    edge.publish(7, frame(stale, stale.type), 4)
    edge.publish(7, event(1), 5)
    answer(edge, 5, 1, 2, 9)
    assert numbers(new) == [1]


def test_a_hole_in_the_changes_is_asked_about() -> None:
    edge, one, two = two_members()
    told = GroupMembers(7, 5, joined=[9])
    edge.publish(7, frame(told, told.type), 5)
    assert one.got == two.got == []
    answer(edge, 5, 2)
    assert [f["type"] for f in two.got] == ["group.members"]
    assert one.got == []
