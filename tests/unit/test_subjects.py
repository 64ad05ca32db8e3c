"""Subjects, inboxes and ids: what may become part of a subject, and whose reply goes where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import ids, subjects


@pytest.mark.parametrize("text", ["a", "A-z_09", "x" * 64])
def test_a_token_may_be_part_of_a_subject(text: str) -> None:
    assert subjects.is_token(text)


@pytest.mark.parametrize("text", ["", "a.b", "*", ">", "a b", "a\r\nPUB x", "x" * 65, "ä", "a\n"])
def test_what_is_no_token(text: str) -> None:
    assert not subjects.is_token(text)


@given(st.integers(0, 2**53 - 1))
def test_the_acting_user_is_the_subjects_token(user_id: int) -> None:
    assert subjects.acting_user(subjects.command(user_id, "message.send")) == user_id


@pytest.mark.parametrize("token", ["", "x", "-1", "01", "+1", "1e3", "*", ">", "１", "9" * 17])
def test_a_strange_user_token_is_nobody(token: str) -> None:
    assert subjects.acting_user(f"im.v1.cmd.{token}.message.send") is None


EDGE = "_INBOX.e." + "a" * 22


@pytest.mark.parametrize(
    "reply", [f"{EDGE}.1", f"{EDGE}.1.2", "_INBOX.u.7.x", "_INBOX.u.7.nuid.22"]
)
def test_allowed_replies(reply: str) -> None:
    assert subjects.reply_allowed(reply, 7)


@pytest.mark.parametrize(
    "reply",
    [
        "im.v1.user.7",
        "_INBOX.u.8.x",
        "_INBOX.u.77.x",
        "_INBOX.u.7",
        "_INBOX.u.7.",
        "_INBOX.u.7.*",
        "_INBOX.u.7.a.>",
        EDGE,
        "_INBOX.e.abc.1",
        f"{EDGE}.*",
        f"{EDGE}.1\r\nPUB x",
        "_INBOX.x.1",
    ],
)
def test_refused_replies(reply: str) -> None:
    assert not subjects.reply_allowed(reply, 7)


@given(st.integers(1, 2**53 - 1), st.integers(1, 2**53 - 1))
def test_a_private_conversation_is_the_same_from_both_sides(a: int, b: int) -> None:
    if a == b:
        return
    name = ids.private_conversation(a, b)
    assert name == ids.private_conversation(b, a)
    pair = ids.members_of_private(name)
    assert pair is not None
    assert (pair.lower, pair.higher) == (min(a, b), max(a, b))
    assert pair.other(a) == b


@pytest.mark.parametrize(
    "name", ["", "p_2_1", "p_1_1", "p_01_2", "g_1", "p_1", "p_1_2_3", "q_1_2", "p_a_b", "p_１_2"]
)
def test_what_is_no_private_conversation(name: str) -> None:
    assert ids.members_of_private(name) is None


@given(
    st.integers(ids.EPOCH_MS, ids.EPOCH_MS + 2**41 - 1),
    st.integers(0, ids.MAX_PARTITION),
    st.integers(0, ids.MAX_COUNTER),
)
def test_a_snowflake_tells_its_time_and_fits_sql(ms: int, partition: int, counter: int) -> None:
    number = ids.snowflake(ms, partition, counter)
    assert 0 <= number < 2**63
    assert ids.snowflake_ms(number) == ms


def test_months_are_utc() -> None:
    assert ids.month_of(1_767_225_599_999) == 202512
    assert ids.month_of(1_767_225_600_000) == 202601
