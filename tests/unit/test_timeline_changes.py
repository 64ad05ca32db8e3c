"""The rules of changes and positions, one by one."""

import json
from typing import Any

import msgspec
import pytest

from functions.timeline.changes import MAX_EMOJIS, strip
from functions.timeline.core import apply, prepare
from functions.timeline.hot import batches
from functions.timeline.metrics import Counters
from functions.timeline.outbox import fact
from functions.timeline.pending import Pending
from functions.timeline.publish import Publisher
from functions.timeline.state import (
    Accepted,
    Changed,
    Conversation,
    Dead,
    Effect,
    Moved,
    Position,
    Progress,
    Refused,
    State,
    Unchanged,
)
from schemas.messages import MAX_REACTORS, Message, Origin, Reaction
from schemas.records import (
    AnyRequest,
    DeliveredRequested,
    EditRequested,
    PinRequested,
    ReactRequested,
    ReadRequested,
    RecallRequested,
    SendRequested,
)
from shared.adapters.memory import MemoryBus
from shared.ids import EPOCH_MS
from shared.log import Record

NOW = EPOCH_MS + 1_000_000
INBOX = f"_INBOX.e.{'x' * 22}"
decode = msgspec.json.Decoder(Message).decode


class Log:
    """Applies records one after the other. `at`: the log's time."""

    def __init__(self, conversation: str = "p_1_2") -> None:
        self.state = State(3, Progress())
        self.conversation = conversation
        self.at = NOW
        self.offset = 0
        self.state.conversations[conversation] = Conversation()

    def asked(self, user: int) -> dict[str, Any]:
        reply = f"{INBOX}.{self.offset}"
        return {"conversation_id": self.conversation, "user_id": user, "at": 0, "reply": reply}

    def apply(self, request: AnyRequest) -> Effect:
        self.offset += 1
        record = Record(3, self.offset, self.at, msgspec.json.encode(request))
        return apply(self.state, prepare(record))

    def send(self, user: int = 1, content: str = "hello", **more: Any) -> Accepted:
        name = f"m{self.offset}"
        request = SendRequested(
            **self.asked(user), client_msg_id=name, msg_type=1, content=content, **more
        )
        effect = self.apply(request)
        assert type(effect) is Accepted
        return effect

    def recall(self, sent: Accepted, user: int = 1, *, moderator: bool = False) -> Effect:
        return self.apply(
            RecallRequested(
                **self.asked(user), msg_id=sent.row[1], window_ms=1_000, moderator=moderator
            )
        )

    def edit(self, sent: Accepted, content: str, user: int = 1, **more: Any) -> Effect:
        return self.apply(
            EditRequested(**self.asked(user), msg_id=sent.row[1], content=content, **more)
        )

    def react(self, sent: Accepted, emoji: str, user: int = 1, *, remove: bool = False) -> Effect:
        return self.apply(
            ReactRequested(**self.asked(user), msg_id=sent.row[1], emoji=emoji, remove=remove)
        )

    def pin(self, sent: Accepted, user: int = 1, *, remove: bool = False) -> Effect:
        return self.apply(PinRequested(**self.asked(user), msg_id=sent.row[1], remove=remove))

    def read(self, seq: int, user: int = 2) -> Effect:
        return self.apply(ReadRequested(**self.asked(user), seq=seq))

    def delivered(self, seq: int, user: int = 2) -> Effect:
        return self.apply(DeliveredRequested(**self.asked(user), seq=seq))


def changed(effect: Effect) -> Message:
    assert type(effect) is Changed, effect
    return decode(effect.message)


def code(effect: Effect) -> str:
    assert type(effect) is Refused, effect
    return effect.code


def test_a_recall_leaves_nothing_of_the_message() -> None:
    log = Log()
    sent = log.send(
        reply_to="5", mentions=[2, "all"], file_id="f", extra=msgspec.Raw(b'{"secret":1}'),
        forward=Origin("5", "p_1_9", 9, NOW),
    )  # fmt: skip
    log.react(sent, "a")
    log.pin(sent)
    log.edit(sent, "other", mentions=["all"])
    effect = log.recall(sent)
    before = decode(sent.message)
    assert changed(effect) == Message(
        before.msg_id, "p_1_2", 1, 1, "", before.timestamp, 1, before.client_msg_id, 1, 2, rev=4
    )
    assert type(effect) is Changed
    pending = Pending(Progress())
    pending.add([effect], Progress())
    assert {(table, key) for table, keys in pending.removals.items() for key in keys} == {
        ("message_edit", (sent.row[0],)),
        ("message_reaction", (sent.row[0],)),
        ("conversation_pin", ("p_1_2", sent.row[0])),
        ("message_mention", (0, "p_1_2", 1)),
    }
    assert json.loads(fact(effect))["data"]["content"] == ""


def test_the_window_is_of_the_log_and_only_the_senders() -> None:
    log = Log()
    sent = log.send()
    assert code(log.recall(sent, user=2)) == "forbidden"
    log.at += 1_000
    assert type(log.recall(sent)) is Changed
    late = log.send()
    log.at += 1_001
    assert code(log.recall(late)) == "recall_window_passed"
    assert changed(log.recall(late, user=2, moderator=True)).status == 1


def test_what_is_so_already_is_answered_with_the_rev_of_the_message() -> None:
    log = Log()
    first, second = log.send(), log.send()
    for sent in (first, second):
        log.react(sent, "x")
    again = log.react(first, "x")
    assert type(again) is Unchanged
    assert json.loads(again.ack)["rev"] == 1


def test_nothing_changes_a_tombstone() -> None:
    log = Log()
    sent = log.send()
    log.recall(sent)
    assert type(log.recall(sent)) is Unchanged
    log.at += 10_000
    assert type(log.recall(sent)) is Unchanged, "a repeat is no question of time"
    for effect in (log.edit(sent, "x"), log.react(sent, "x"), log.pin(sent)):
        assert code(effect) == "conflict"
    assert log.state.conversations["p_1_2"].max_rev == 1


def test_an_edit_keeps_what_was_and_replaces_mentions() -> None:
    log = Log()
    sent = log.send(mentions=[2, 2, "all"])
    log.at += 50
    effect = log.edit(sent, "new", mentions=["all", 1])
    assert (changed(effect).content, changed(effect).edited_at) == ("new", NOW + 50)
    assert type(effect) is Changed
    writes = {(w.table, w.key): w.row for w in effect.writes}
    i = sent.row[0]
    assert writes == {
        ("message_change", ("p_1_2", 1)): ("p_1_2", 1, i),
        ("message_edit", (i, 1)): (i, 1, "hello", NOW + 50),
        ("message_mention", (2, "p_1_2", 1)): None,
        ("message_mention", (1, "p_1_2", 1)): (1, "p_1_2", 1),
    }
    assert type(log.edit(sent, "new", mentions=["all", 1])) is Unchanged
    assert code(log.edit(sent, "x", user=2)) == "forbidden"


def test_a_clock_that_steps_back_makes_no_change_before_its_message() -> None:
    log = Log()
    sent = log.send()
    log.at -= 500
    assert changed(log.edit(sent, "new")).edited_at == NOW


def test_reactions_stand_in_the_order_of_the_first() -> None:
    log = Log()
    sent = log.send()
    log.react(sent, "a", 1)
    log.react(sent, "b", 1)
    message = changed(log.react(sent, "a", 2))
    assert message.reactions == [Reaction("a", 2, [1, 2]), Reaction("b", 1, [1])]
    assert type(log.react(sent, "a", 2)) is Unchanged
    message = changed(log.react(sent, "a", 1, remove=True))
    assert message.reactions == [Reaction("b", 1, [1]), Reaction("a", 1, [2])]
    assert type(log.react(sent, "a", 1, remove=True)) is Unchanged


def test_reactions_are_counted_beyond_those_named_and_bounded() -> None:
    log = Log("g_5")
    sent = log.send()
    for user in range(1, MAX_REACTORS + 6):
        message = changed(log.react(sent, "a", user))
    assert message.reactions == [Reaction("a", MAX_REACTORS + 5, list(range(1, MAX_REACTORS + 1)))]
    message = changed(log.react(sent, "a", 1, remove=True))
    assert message.reactions[0].user_ids == list(range(2, MAX_REACTORS + 2))
    for i in range(MAX_EMOJIS - 1):
        log.react(sent, f"e{i}")
    assert code(log.react(sent, "more")) == "conflict"
    assert type(log.react(sent, "e1", 2)) is Changed


def test_pins() -> None:
    log = Log()
    sent = log.send()
    assert changed(log.pin(sent, 2)).pinned
    assert type(log.pin(sent, 1)) is Unchanged
    assert not changed(log.pin(sent, 1, remove=True)).pinned


def test_a_message_of_another_conversation_is_not_there() -> None:
    log = Log()
    sent = log.send()
    log.conversation = "p_1_3"
    log.state.conversations["p_1_3"] = Conversation()
    assert code(log.recall(sent)) == "not_found"
    unknown = PinRequested(**log.asked(1), msg_id="99999999999999999999")
    assert code(log.apply(unknown)) == "not_found"


def test_reads_move_forward_to_the_newest_at_most() -> None:
    log = Log()
    for _ in range(3):
        log.send()
    effect = log.read(2)
    assert type(effect) is Moved
    assert json.loads(effect.ack) == {"conversation_id": "p_1_2", "seq": 2, "rev": 1}
    assert effect.row == (2, "p_1_2", 2, 1, 2)
    assert type(log.read(1)) is Unchanged
    effect = log.read(99)
    assert type(effect) is Moved
    assert json.loads(effect.ack)["unread"] == 0
    assert effect.row == (2, "p_1_2", 3, 2, 3)
    assert type(log.delivered(3)) is Unchanged, "what is read is delivered"
    moved = log.delivered(9, user=1)
    assert type(moved) is Moved
    assert (moved.row, moved.head) == ((1, "p_1_2", 0, 0, 3), None)
    conversation = log.state.conversations["p_1_2"]
    assert (conversation.max_rev, conversation.message_rev) == (2, 0)


def test_reads_in_groups_have_no_number_and_only_members_have_positions() -> None:
    log = Log("g_5")
    log.send()
    assert code(log.read(1)) == "not_member"
    log.state.positions[2, "g_5"] = Position()
    effect = log.read(1)
    assert type(effect) is Moved
    assert effect.head is None
    assert json.loads(effect.ack)["rev"] == 0
    log.state.positions[2, "g_5"] = Position(left=True)
    assert code(log.delivered(1)) == "not_member"


@pytest.mark.parametrize("content", [b'"\\ud800"', b"7"])
def test_a_change_that_is_no_request_is_dead(content: bytes) -> None:
    log = Log()
    request = msgspec.json.encode(EditRequested(**log.asked(1), msg_id="7", content="CONTENT"))
    record = Record(3, 1, NOW, request.replace(b'"CONTENT"', content))
    assert type(apply(log.state, prepare(record))) is Dead


async def test_what_is_recalled_in_the_same_batch_never_leaves() -> None:
    log, bus = Log(), MemoryBus()
    sent: list[tuple[str, bytes]] = []
    for pattern in ("im.v1.user.*", "_INBOX.e.>"):
        bus.listen(pattern, lambda s, _r, payload, _h: sent.append((s, payload)))
    message, other = log.send(content="secret"), log.send(content="open")
    effects: list[Effect] = [message, other, log.recall(message), log.edit(other, "opener")]
    out = strip(effects)
    Publisher(bus, Counters()).publish(out)
    await bus.flush()
    pushed = [json.loads(p) for s, p in sent if s == "im.v1.user.2"]
    assert [(p["type"], p["data"].get("content")) for p in pushed] == [
        ("message", ""), ("message", "open"), ("recall", None), ("edit", "opener"),
    ]  # fmt: skip
    assert pushed[0]["data"]["status"] == 1
    assert all(b"secret" not in fact(e) for e in out if isinstance(e, Accepted | Changed))
    found, fresh = batches(out)
    assert (found["p_1_2"].before, found["p_1_2"].after) == (0, 2)
    contents = {s: json.loads(m)["content"] for s, m in found["p_1_2"].messages.items()}
    assert contents == {1: "", 2: "opener"}
    assert found["p_1_2"].changed == {1, 2}
    assert fresh == [(1, "p_1_2"), (2, "p_1_2")]
    assert len([s for s, _ in sent if s.startswith(INBOX)]) == 2, "changes are answered later"
    pending = Pending(Progress())
    pending.add(effects, Progress())
    assert [json.loads(a.ack)["rev"] for a in pending.answers] == [1, 2]


async def test_deliveries_are_pushed_once_a_batch_and_only_to_the_peer() -> None:
    log, bus = Log(), MemoryBus()
    sent: list[tuple[str, bytes]] = []
    bus.listen("im.v1.user.*", lambda s, _r, payload, _h: sent.append((s, payload)))
    for _ in range(3):
        log.send()
    effects = [log.delivered(seq) for seq in (1, 2, 3)]
    Publisher(bus, Counters()).publish(effects)
    await bus.flush()
    assert [(s, json.loads(p)["data"]["seq"]) for s, p in sent] == [("im.v1.user.1", 3)]
    pending = Pending(Progress())
    pending.add(effects, Progress())
    assert list(pending.positions.values()) == [(2, "p_1_2", 0, 0, 3)]
    assert not pending.heads
