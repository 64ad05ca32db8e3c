"""The rules of refresh tokens, against a second, plainer description of them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from functions.auth.refresh import (
    LIFETIME_MS,
    REPEAT_MS,
    Meaning,
    SessionState,
    digest,
    judge,
    mint,
    session_of,
    successor,
)

NOW = 1_800_000_000_000


def opened() -> tuple[SessionState, str]:
    token = mint("session", 1)
    return SessionState("session", 7, 1, digest(token), NOW + LIFETIME_MS), token


def trade(state: SessionState, token: str, now: int) -> tuple[SessionState, str]:
    new = mint("session", state.generation + 1)
    return successor(state, judge(state, token, now), new, now), new


# Each step presents one of all tokens ever given (counted from the newest) some time later.
steps = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0, 1, REPEAT_MS - 1, 2, REPEAT_MS + 1])),
    max_size=12,
)


@given(steps)
def test_only_the_newest_and_for_a_moment_the_last_used_are_good(
    steps: list[tuple[int, int]],
) -> None:
    state, newest = opened()
    tokens, now = [newest], NOW
    used: tuple[str, int] | None = None
    for age, later in steps:
        now += later
        token = tokens[max(0, len(tokens) - 1 - age)]
        meaning = judge(state, token, now)
        if token == tokens[-1]:
            assert meaning is Meaning.NEWEST
            used = token, now
        elif used and token == used[0] and now - used[1] <= REPEAT_MS:
            assert meaning is Meaning.REPEATED
        else:
            assert meaning is Meaning.REUSED
            ended = msgspec.structs.replace(state, ended_ms=now)
            assert {judge(ended, t, now) for t in tokens} == {Meaning.INVALID}
            return
        state, new = trade(state, token, now)
        tokens.append(new)


def test_two_holders_of_one_token_are_found_out_whoever_is_first() -> None:
    state, copied = opened()
    state, mine = trade(state, copied, NOW)
    # The other one repeats it within the moment: my pair is void from now on, and using it tells.
    state, theirs = trade(state, copied, NOW + 1)
    assert judge(state, theirs, NOW + 2) is Meaning.NEWEST
    assert judge(state, mine, NOW + 2) is Meaning.REUSED


def test_a_repeat_does_not_prolong_its_moment() -> None:
    state, lost = opened()
    state, _ = trade(state, lost, NOW)
    state, _ = trade(state, lost, NOW + REPEAT_MS)
    assert judge(state, lost, NOW + REPEAT_MS + 1) is Meaning.REUSED


def test_no_repeat_once_the_successor_was_used() -> None:
    state, first = opened()
    state, second = trade(state, first, NOW)
    state, _ = trade(state, second, NOW)
    assert judge(state, first, NOW) is Meaning.REUSED


def test_expired_ended_and_unknown_sessions_take_nothing() -> None:
    state, token = opened()
    assert judge(None, token, NOW) is Meaning.INVALID
    assert judge(state, token, NOW + LIFETIME_MS - 1) is Meaning.NEWEST
    assert judge(state, token, NOW + LIFETIME_MS) is Meaning.INVALID


def test_a_forged_token_of_the_newest_or_a_later_generation_harms_nobody() -> None:
    state, _ = opened()
    assert judge(state, "session.1.forged", NOW) is Meaning.INVALID
    assert judge(state, "session.2.forged", NOW) is Meaning.INVALID


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    state, _ = opened()
    assert judge(state, text, NOW) is Meaning.INVALID or session_of(text) is not None


def test_session_of() -> None:
    assert session_of(mint("a-session", 12)) == "a-session"
    for bad in ("", ".", "a", "a.1", "a.1.", "a.x.y", "a.-1.y", f"a.{'9' * 20}.y"):
        assert session_of(bad) is None
