"""What a text is found by."""

from hypothesis import given
from hypothesis import strategies as st

from shared.words import MAX_TOKEN, contains, terms_of, tokens_of


def found(text: str, query: str) -> bool:
    """As the search does it: candidates by their tokens, then the text itself."""
    terms, tokens = terms_of(query), tokens_of(text)
    candidate = bool(terms) and all(
        any(t.startswith(wanted) if term.prefix else t == wanted for t in tokens)
        for term in terms
        for wanted in term.tokens
    )
    right = bool(terms) and contains(text, terms)
    assert candidate or not right, "the index would miss it"
    return right


def test_words_are_found_by_how_they_begin() -> None:
    assert found("See you at the Harbour, ten o'clock", "harb")
    assert found("See you at the Harbour", "YOU see")
    assert not found("See you at the Harbour", "arbour")
    assert not found("See you", "see them")


def test_chinese_and_japanese_are_found_by_any_part() -> None:
    assert found("我们明天在北京见面", "北京")
    assert found("我们明天在北京见面", "京")
    assert found("我们明天在北京见面", "面"), "the last letter alone"
    assert found("明日は東京タワーで会いましょう", "東京タワー")
    assert not found("北方京城", "北京")
    assert not found("京北", "北京")
    assert found("안녕하세요 여러분", "하세")


def test_a_pair_that_stands_apart_is_a_candidate_only() -> None:
    assert not found("天気 気分 分析", "天気分析")


def test_width_case_and_mixed_scripts() -> None:
    assert found("ＮＡＴＳ と Python を使う", "nats python")
    assert found("Straße", "STRASSE")
    assert found("用Python写的服务器", "python 服务")
    assert found("ﾊﾝｶｸ", "ハンカク")


def test_nothing_to_look_for() -> None:
    assert terms_of("  …!? 🙂") == []
    assert tokens_of("🙂 — …") == set()


def test_long_words_are_cut_at_a_letter() -> None:
    assert found("x" + "é" * 100, "x" + "é" * 50)
    assert all(len(t) <= MAX_TOKEN and t.decode() for t in tokens_of("x" + "é" * 100))


@given(st.text(max_size=200), st.text(max_size=8))
def test_whatever_the_text_contains_is_found(text: str, query: str) -> None:
    found(text, query)
    found(text, text[:20])


@given(st.text(alphabet="北京東大日本ab Ａ1", min_size=1, max_size=40), st.data())
def test_every_part_of_a_run_is_found(text: str, data: st.DataObject) -> None:
    terms = terms_of(text)
    if terms:
        term = data.draw(st.sampled_from(terms)).text
        part = term[: data.draw(st.integers(1, len(term)))]
        assert found(text, part)
