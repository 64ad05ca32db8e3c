import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadRequest
from shared.names import MAX_KEY, fold, nickname_key, username_key


def test_one_name_in_many_spellings() -> None:
    same = ["straße", "STRASSE", "Ｓtrasse", "strasſe"]
    assert {username_key(name) for name in same} == {"strasse"}
    assert username_key("e\u0301") == username_key("É")
    assert username_key("e") != username_key("é")


@given(st.text(max_size=64))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@pytest.mark.parametrize(
    "name", ["al\u200dice", "\u202ealice", "a\u00a0b", "\u00a8", "\u2003", "a\u00ad"]
)
def test_invisible_characters_are_refused_in_usernames(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        username_key(name)
    assert refused.value.field == "username"


def test_a_name_that_grows_too_long_is_refused() -> None:
    with pytest.raises(BadRequest, match="too long"):
        username_key("\ufdfa" * 64)


def test_nicknames_are_cut_not_refused_but_must_show_something() -> None:
    assert len(nickname_key("\ufdfa" * 64)) == MAX_KEY
    for nothing in (" \u3000", "\u200b", "\u2060 \u00ad"):
        with pytest.raises(BadRequest) as refused:
            nickname_key(nothing)
        assert refused.value.field == "nickname"
