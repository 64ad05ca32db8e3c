"""What a text is found by: the same for the index that is written and for the words that are looked for.

Letters are compared without case and width (NFKC, case-folded). A run of letters of a script that puts spaces between
words is one word, found by how it begins. Scripts without spaces, Chinese and Japanese above all, are cut into
overlapping pairs of letters, since no dictionary is at hand and MariaDB has no n-gram parser; Korean, whose words
grow endings, too.
"""

import re
import unicodedata
from typing import NamedTuple

import msgspec

MAX_TOKEN = 32
"""Longest token in bytes of UTF-8; a longer word is cut, and found by its beginning."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Myanmar
    "\u1100-\u11ff"  # Hangul
    "\u1780-\u17ff"  # Khmer
    "\u2e80-\u2fdf\u3005-\u3007"  # Han: radicals and marks
    "\u3041-\u31bf\u31f0-\u31ff"  # Kana, Bopomofo, Hangul's letters
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\ua960-\ua97f\uac00-\ud7ff"  # Hangul
)
_RUNS = re.compile(rf"([{_UNSPACED}]+)|([^\W_{_UNSPACED}]+)")


TEXT = 1
"""`msg_type` of plain text."""


class _File(msgspec.Struct):
    name: str = ""


_decode_file = msgspec.json.Decoder(_File).decode


class Term(NamedTuple):
    """One part of a query. `tokens`: those that a text must have; `prefix`: they only have to begin so."""

    text: str
    tokens: tuple[bytes, ...]
    prefix: bool


def text_of(msg_type: int, content: str) -> str:
    """What people look for in a message: its text, or the name of its file; nothing in a system message."""
    if msg_type == TEXT:
        return content
    if msg_type == 0:
        return ""
    try:
        return _decode_file(content).name
    except ValueError:  # msgspec's errors are ValueErrors; older messages held anything
        return content


def folded(text: str) -> str:
    """A text as it is compared."""
    # Twice: folding can make a letter that has a compatible form of its own.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def tokens_of(text: str) -> set[bytes]:
    """The tokens under which a text stands in the index: words, pairs, and the last letter of a run."""
    found: set[bytes] = set()
    for unspaced, word in _RUNS.findall(folded(text)):
        if word:
            found.add(_cut(word))
        else:
            found.update(unspaced[i : i + 2].encode() for i in range(len(unspaced)))
    return found


def terms_of(query: str) -> list[Term]:
    """What a text must contain to be found; empty if the query has no letter or digit."""
    terms: list[Term] = []
    for unspaced, word in _RUNS.findall(folded(query)):
        if word:
            terms.append(Term(word, (_cut(word),), prefix=True))
        elif len(unspaced) == 1:
            terms.append(Term(unspaced, (unspaced.encode(),), prefix=True))
        else:
            pairs = dict.fromkeys(unspaced[i : i + 2].encode() for i in range(len(unspaced) - 1))
            terms.append(Term(unspaced, tuple(pairs), prefix=False))
    return terms


def contains(text: str, terms: list[Term]) -> bool:
    """Whether a text has all terms: the index names candidates only, and may be late."""
    runs = _RUNS.findall(folded(text))
    words = [word for _, word in runs if word]
    unspaced = [run for run, _ in runs if run]
    return all(
        any(term.text in run for run in unspaced)
        if re.match(f"[{_UNSPACED}]", term.text)
        else any(word.startswith(term.text) for word in words)
        for term in terms
    )


def _cut(word: str) -> bytes:
    """At most MAX_TOKEN bytes, never half a letter."""
    return word.encode()[:MAX_TOKEN].decode(errors="ignore").encode()
