"""Order in one conversation: whatever comes in, 1 … n comes out, each once."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.python.natterjack.timeline import WINDOW, Timeline
from schemas.events import Edited, Pinned, Reacted, Recalled
from schemas.messages import Message, Reaction

CONVERSATION = "p_1_2"


def message(seq: int, rev: int = 0) -> Message:
    return Message(str(seq), CONVERSATION, 1, 1, f"{seq}", 1000, seq, f"c{seq}", 0, 2, rev=rev)


def answer(
    timeline: Timeline, stored: list[Message], changes: list[Message], most: int
) -> list[Message]:
    """What the server says to what the timeline misses, at most `most` messages of it."""
    missing = timeline.missing
    assert missing is not None
    span = stored[missing.after_seq : missing.after_seq + min(most, missing.limit)]
    later = [m for m in changes if m.rev > missing.after_rev]
    fresh = sorted(later, key=lambda m: m.rev)[:most]
    newest = max((m.rev for m in changes), default=0)
    upto = fresh[-1].rev if len(fresh) < len(later) else newest
    return timeline.page(span, fresh, len(stored), newest, upto)


@given(data=st.data(), n=st.integers(0, 60), start=st.integers(0, 10), room=st.integers(1, 5))
@settings(max_examples=300)
def test_any_order_loss_and_doubles(data: st.DataObject, n: int, start: int, room: int) -> None:
    stored = [message(seq) for seq in range(1, n + 1)]
    start = min(start, n)
    timeline = Timeline(CONVERSATION, start)
    pushes = data.draw(st.lists(st.sampled_from(stored), max_size=80)) if stored else []
    out: list[int] = []
    for push in pushes:
        action = data.draw(st.sampled_from(["push", "head", "pull", "nothing"]))
        if action == "push":
            timeline.add(push)
        elif action == "head":
            timeline.head(push.seq, 0)
        elif action == "pull" and timeline.missing:
            answer(timeline, stored, [], most=data.draw(st.integers(1, 7)))
        out += [m.seq for m in timeline.release(room)]
        assert out == list(range(start + 1, start + 1 + len(out)))
        assert all(seq > timeline.seq for seq in timeline._held)
    timeline.head(n, 0)  # the server says at last how far it goes
    while timeline.behind:
        if timeline.missing:
            answer(timeline, stored, [], most=3)
        out += [m.seq for m in timeline.release(room)]
    assert out == list(range(start + 1, n + 1))
    assert timeline.missing is None


@given(data=st.data(), n=st.integers(1, 20))
@settings(max_examples=300)
def test_the_newest_state_of_every_message_arrives(data: st.DataObject, n: int) -> None:
    """Changes while messages are held, pulled, late: in the end the reader knows the last state of each."""
    stored = [message(seq) for seq in range(1, n + 1)]
    originals = list(stored)
    changed: dict[int, Message] = {}
    rev = 0
    timeline = Timeline(CONVERSATION)
    known: dict[int, int] = {}
    steps = st.sampled_from(["push", "change", "head", "pull"])
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(steps)
        index = data.draw(st.integers(0, n - 1))
        if step == "push":
            timeline.add(data.draw(st.sampled_from([originals[index], stored[index]])))
        elif step == "change":
            rev += 1
            stored[index] = msgspec.structs.replace(stored[index], rev=rev)
            changed[index] = stored[index]
        elif step == "head":
            timeline.head(index + 1, rev)
        elif timeline.missing:
            report(known, answer(timeline, stored, list(changed.values()), most=2))
        note(known, timeline.release(100))
    timeline.head(n, rev)
    while timeline.behind:
        if timeline.missing:
            report(known, answer(timeline, stored, list(changed.values()), most=2))
        note(known, timeline.release(100))
    assert known == {m.seq: m.rev for m in stored}


def note(known: dict[int, int], messages: list[Message]) -> None:
    for m in messages:
        known[m.seq] = max(known.get(m.seq, 0), m.rev)


def report(known: dict[int, int], changes: list[Message]) -> None:
    """A change is told only of a message that the reader has."""
    assert all(m.seq in known for m in changes)
    note(known, changes)


def test_a_late_push_does_not_undo_a_change() -> None:
    timeline = Timeline(CONVERSATION)
    assert timeline.page([], [message(2, rev=1)], max_seq=2, max_rev=1, upto_rev=1) == []
    timeline.add(message(2))
    timeline.add(message(1))
    assert [(m.seq, m.rev) for m in timeline.release(9)] == [(1, 0), (2, 1)]


def test_what_lies_far_ahead_is_not_held_but_asked_for() -> None:
    timeline = Timeline(CONVERSATION)
    for seq in range(2, WINDOW + 100):
        timeline.add(message(seq))
    assert len(timeline._held) == WINDOW - 1
    timeline.add(message(1))
    assert len(timeline.release(10_000)) == WINDOW
    assert timeline.missing is not None
    assert timeline.missing.after_seq == WINDOW
    assert timeline.missing.limit >= 99


def test_only_the_gap_is_asked_for() -> None:
    timeline = Timeline(CONVERSATION, seq=10)
    timeline.add(message(60))
    missing = timeline.missing
    assert missing is not None
    assert (missing.after_seq, missing.limit) == (10, 49)


def recalled(seq: int, rev: int) -> Recalled:
    return Recalled(CONVERSATION, str(seq), seq, rev, user_id=1, timestamp=2000)


def test_pushed_changes_are_applied_in_order_and_gaps_are_asked_for() -> None:
    timeline = Timeline(CONVERSATION)
    for seq in (1, 2, 3):
        timeline.add(message(seq))
    timeline.release(9)
    likes = [Reaction("👍", 1, [2])]
    changes = [
        Edited(CONVERSATION, "1", 1, 1, 1, content="new", mentions=["all"], edited_at=2000),
        Reacted(CONVERSATION, "1", 1, 2, 2, emoji="👍", remove=False, reactions=likes),
        Pinned(CONVERSATION, "1", 1, 3, 2, remove=False),
    ]
    for change in changes:
        now = timeline.change(change)
        assert now is not None
        assert timeline.change(change) is None, "a double"
    assert now is not None
    assert (now.content, now.mentions, now.edited_at, now.pinned) == ("new", ["all"], 2000, True)
    assert (now.reactions, now.rev, timeline.missing) == (likes, 3, None)
    assert timeline.change(recalled(2, 5)) is None
    assert timeline.missing is not None
    assert timeline.missing.after_rev == 3
    timeline.page([], [message(3, rev=4), message(2, rev=5)], 3, 5, 5)
    assert timeline.missing is None
    now = timeline.change(recalled(1, 6))
    assert now is not None
    assert (now.status, now.content, now.reactions, now.mentions, now.pinned) == (
        1,
        "",
        [],
        [],
        False,
    )


def test_a_change_of_a_message_that_is_not_at_hand_is_asked_for() -> None:
    timeline = Timeline(CONVERSATION, seq=500)
    assert timeline.change(recalled(3, 1)) is None
    assert timeline.missing is not None
    assert timeline.missing.after_rev == 0


def test_changes_that_do_not_fit_into_one_page() -> None:
    timeline = Timeline(CONVERSATION, seq=5)
    fresh = timeline.page([], [message(1, rev=1), message(2, rev=4)], 5, 9, upto_rev=4)
    assert [m.rev for m in fresh] == [1, 4]
    assert timeline.missing is not None
    assert timeline.missing.after_rev == 4
    timeline.page([], [message(3, rev=7)], 5, 9, upto_rev=9)  # the last ones are reads
    assert timeline.missing is None


def test_reads_count_in_private_conversations_only() -> None:
    timeline = Timeline(CONVERSATION, seq=5)
    assert timeline.read(2, 3, rev=1)
    assert not timeline.read(2, 2, rev=2)
    assert (timeline.rev, timeline.missing) == (2, None)
    assert timeline.read(2, 5, rev=None)
    group = Timeline("g_1", seq=5)
    assert group.read(1, 3, rev=1)
    assert group.missing is not None, "of a change that was not seen"


def test_what_was_cleared_is_not_waited_for() -> None:
    timeline = Timeline(CONVERSATION, seq=2)
    timeline.add(message(5))
    timeline.add(message(9))
    timeline.page([message(8)], [], 9, 0, None, first_seq=8)
    assert [m.seq for m in timeline.release(9)] == [8, 9]
    assert timeline.missing is None
