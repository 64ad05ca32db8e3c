"""The timeline's rules on any log, cut anywhere: same numbers, same rows, same answers."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.python.natterjack.changes import CHANGES
from clients.python.natterjack.changes import changed as client_changed
from functions.timeline.core import apply, prepare
from functions.timeline.sends import row_of
from functions.timeline.state import (
    Accepted,
    Changed,
    Conversation,
    Dead,
    Effect,
    Moved,
    NotLoadedError,
    Post,
    Progress,
    Refused,
    Repeated,
    State,
)
from schemas.messages import Message, Origin
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
from shared.ids import EPOCH_MS, MAX_COUNTER, month_of, snowflake, snowflake_ms
from shared.log import Record

NOW = EPOCH_MS + 1_000_000


def sending(sender: int, receiver: int, name: str, content: str = "x", **more: Any) -> bytes:
    low, high = sorted((sender, receiver))
    request = SendRequested(
        conversation_id=f"p_{low}_{high}", user_id=sender, at=0, client_msg_id=name, msg_type=1, content=content,
        **more,
    )  # fmt: skip
    return msgspec.json.encode(request)


def changing(sender: int, receiver: int, request: AnyRequest) -> bytes:
    low, high = sorted((sender, receiver))
    return msgspec.json.encode(
        msgspec.structs.replace(request, conversation_id=f"p_{low}_{high}", user_id=sender)
    )


ASKED: dict[str, Any] = {"conversation_id": "p_1_2", "user_id": 1, "at": 0}
# Ids of the first messages that a log can make, whosesoever they are.
ids = st.tuples(st.integers(-3, 8), st.integers(0, 1)).map(
    lambda at: str(snowflake(NOW + at[0], 3, at[1]))
)
changes_ = st.one_of(
    st.builds(lambda i, w, m: RecallRequested(**ASKED, msg_id=i, window_ms=w, moderator=m),
              ids, st.sampled_from([1, 1_000]), st.booleans()),
    st.builds(lambda i, c, m: EditRequested(**ASKED, msg_id=i, content=c, mentions=m),
              ids, st.sampled_from("xyz"), st.sampled_from([[], [1], [1, "all", 1]])),
    st.builds(lambda i, e, r: ReactRequested(**ASKED, msg_id=i, emoji=e, remove=r),
              ids, st.sampled_from("abc"), st.booleans()),
    st.builds(lambda i, r: PinRequested(**ASKED, msg_id=i, remove=r), ids, st.booleans()),
    st.builds(lambda s: ReadRequested(**ASKED, seq=s), st.integers(0, 9)),
    st.builds(lambda s: DeliveredRequested(**ASKED, seq=s), st.integers(0, 9)),
)  # fmt: skip
pairs = st.sampled_from([(1, 2), (2, 1), (1, 3), (3, 2)])

values = st.one_of(
    st.builds(lambda pair, request: changing(pair[0], pair[1], request), pairs, changes_),
    st.builds(
        lambda pair, name, content: sending(pair[0], pair[1], name, content),
        pairs,
        st.sampled_from(["a", "b", "c", *(f"01937c5e-8f3a-7cc1-9d0e-{n:012d}" for n in range(5))]),
        st.sampled_from(["x", "x", "x", "y"]),
    ),
    st.binary(max_size=20),
    st.just(b'{"type":"message.send"}'),
)


def _records(steps: Sequence[tuple[bytes, int, int]]) -> list[Record]:
    records, ms, offset = [], NOW, 0
    for value, drift, hole in steps:
        ms += drift
        offset += hole
        records.append(Record(3, offset, ms, value))
    return records


logs = st.lists(st.tuples(values, st.integers(-3, 3), st.integers(1, 4)), max_size=60).map(_records)


decode = msgspec.json.Decoder(Message).decode


def run(state: State, records: Sequence[Record]) -> list[Effect]:
    """Applies records with everything loaded that a caller must load."""
    effects = []
    for record in records:
        entry = prepare(record)
        if entry.request is not None:
            conversation = state.conversations.setdefault(
                entry.request.conversation_id, Conversation()
            )
            # What is above needs no look-up: so nothing above may be there.
            assert entry.uuid <= conversation.max_uuid or entry.key not in state.answers
        effects.append(apply(state, entry))
    return effects


def fresh() -> State:
    return State(3, Progress())


@given(logs)
def test_numbers_have_no_gap_and_answers_never_change(records: list[Record]) -> None:
    state = fresh()
    effects = run(state, records)
    accepted = [e for e in effects if type(e) is Accepted]
    seqs: dict[str, list[int]] = {}
    answers: dict[tuple[str, int, str], bytes] = {}
    for effect in effects:
        if type(effect) is Accepted:
            seqs.setdefault(effect.request.conversation_id, []).append(effect.seq)
        if type(effect) in (Accepted, Repeated):
            assert isinstance(effect, Accepted | Repeated)
            key = (
                effect.request.conversation_id,
                effect.request.user_id,
                effect.request.client_msg_id,
            )
            assert answers.setdefault(key, effect.ack) == effect.ack
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seqs.values())
    ids = [e.row[0] for e in accepted]
    assert ids == sorted(set(ids))
    assert all(e.month == month_of(snowflake_ms(e.row[0])) for e in accepted)
    assert len(answers) == len(accepted)
    if records:
        assert state.progress.next == records[-1].offset + 1


@given(logs, st.integers(0, 60))
def test_cut_anywhere_and_replayed_it_is_the_same(records: list[Record], cut: int) -> None:
    whole = fresh()
    expected = run(whole, records)
    first = fresh()
    run(first, records[:cut])
    second = State(3, first.progress)
    second.answers = {k: msgspec.structs.replace(a, offset=-1) for k, a in first.answers.items()}
    second.conversations = {
        k: Conversation(c.max_seq, c.max_rev, c.month, c.message_rev, max_uuid=c.max_uuid)
        for k, c in first.conversations.items()
        if c.max_seq
    }
    second.posts = {i: Post(decode(a.message)) for i, a in first.accepted.items()} | {
        i: Post(p.message, p.reactors) for i, p in first.posts.items()
    }
    second.positions = {
        k: msgspec.structs.replace(p, offset=-1) for k, p in first.positions.items()
    }
    assert run(second, records[cut:]) == expected[cut:]
    assert second.progress == whole.progress


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none(), st.lists).map(msgspec.json.encode)
)
def test_whatever_is_in_the_log_moves_on(value: bytes) -> None:
    state = fresh()
    assert type(run(state, [Record(3, 7, NOW, value)])[0]) is Dead
    assert state.progress == Progress(8)


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        sending(1, 2, "a", reply="im.v1.user.5"),
        sending(1, 2, "a", reply="_INBOX.u.9.x"),
        sending(1, 2, "a", conn="a\r\nb"),
        sending(1, 2, "a").replace(b"p_1_2", b"p_2_3"),
        sending(1, 2, "a").replace(b"p_1_2", b"g_0"),
        sending(1, 2, "a").replace(b"p_1_2", b"p_2_1"),
        sending(1, 2, "a", content="x" * 16_001),
        sending(1, 2, "a").replace(b'"a"', b'"\\ud800"'),
    ],
)  # fmt: skip
def test_what_would_do_harm_is_dead(value: bytes) -> None:
    assert type(run(fresh(), [Record(3, 1, NOW, value)])[0]) is Dead


def test_a_full_counter_runs_over_into_the_next_millisecond() -> None:
    state = State(3, Progress(1, NOW, MAX_COUNTER))
    effect = run(state, [Record(3, 1, NOW - 5, sending(1, 2, "a"))])[0]
    assert type(effect) is Accepted
    assert snowflake_ms(effect.row[0]) == NOW + 1
    assert state.progress == Progress(2, NOW + 1, 0)


def test_every_part_of_the_message_counts_for_a_conflict() -> None:
    parts: list[dict[str, Any]] = [
        {"content": "y"}, {"reply_to": "5"}, {"mentions": [1]}, {"file_id": "f"}, {"extra": msgspec.Raw(b"{}")}
    ]  # fmt: skip
    for part in parts:
        records = [
            Record(3, 1, NOW, sending(1, 2, "a")),
            Record(3, 2, NOW, sending(1, 2, "a", **part)),
        ]
        assert type(run(fresh(), records)[1]) is Refused


@given(logs)
def test_changes_have_no_gap_and_rows_are_what_was_pushed(records: list[Record]) -> None:
    state = fresh()
    revs: dict[str, list[int]] = {}
    rows: dict[int, Message] = {}
    for effect in run(state, records):
        if type(effect) is Accepted:
            rows[effect.row[0]] = decode(effect.message)
        elif type(effect) is Changed:
            message = decode(effect.message)
            pushed = json.loads(effect.frame)["data"]
            known = rows[effect.msg_id]
            event = msgspec.convert(pushed, CHANGES[json.loads(effect.frame)["type"]])
            assert client_changed(known, event) == message, "a client comes to the same"
            assert row_of(message, effect.msg_id) == effect.row
            rows[effect.msg_id] = message
            if known.status == 1:
                raise AssertionError("a tombstone changed")
        if isinstance(effect, Changed | Moved) and effect.head is not None:
            revs.setdefault(effect.head.conversation_id, []).append(effect.head.max_rev)
    assert all(found == list(range(1, len(found) + 1)) for found in revs.values())
    for conversation_id, conversation in state.conversations.items():
        assert conversation.max_rev == len(revs.get(conversation_id, []))


def test_a_month_is_opened_once_per_conversation() -> None:
    later = NOW + 40 * 24 * 3_600_000
    records = [
        Record(3, i, ms, sending(1, 2, f"m{i}"))
        for i, ms in enumerate([NOW, NOW, later, later - 1], start=1)
    ]
    effects = [e for e in run(fresh(), records) if type(e) is Accepted]
    assert [e.opens_month for e in effects] == [True, False, True, False]


def test_an_unloaded_conversation_is_the_callers_defect() -> None:
    state = fresh()
    with pytest.raises(NotLoadedError):
        apply(state, prepare(Record(3, 1, NOW, sending(1, 2, "a"))))
    assert state.progress == Progress()


def test_a_forward_is_repeated_even_if_its_origin_is_gone() -> None:
    """What the origin says now, or whether it is there at all, does not matter to a repeat."""

    def forwarding(name: str, of: str, **more: Any) -> bytes:
        return sending(1, 2, name, more.pop("content", ""), forward_of=of, **more)

    origin = Origin("5", "p_1_9", 9, NOW)
    values = (
        forwarding("a", "5", content="said", forward=origin),
        forwarding("a", "5", content="edited", forward=origin),
        forwarding("a", "5"),  # recalled
        forwarding("a", "6"),
        forwarding("b", "5"),
    )
    first, *repeats, other, gone = run(
        fresh(), [Record(3, i, NOW, v) for i, v in enumerate(values)]
    )
    assert type(first) is Accepted
    for repeat in repeats:
        assert type(repeat) is Repeated
        assert repeat.ack == first.ack
    assert type(other) is Refused
    assert type(gone) is Refused
    assert (other.code, gone.code, gone.field) == ("conflict", "not_found", "forward_of")
