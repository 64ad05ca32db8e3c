"""Order in one conversation: whatever comes in, 1 … n comes out, each once."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.python.natterjack.timeline import WINDOW, Timeline
from schemas.messages import Message

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
