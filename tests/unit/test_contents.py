"""`content` by `msg_type`: what passes, and what is refused with the name of the field."""

import json
from typing import Any

import pytest

from schemas.contents import FILE, IMAGE, TEXT, VIDEO, VOICE
from shared.contents import MAX_DEPTH, check_content
from shared.errors import BadRequest

FILE_ID = "f-1"
GOOD: dict[int, dict[str, Any]] = {
    IMAGE: {"file_id": FILE_ID, "size": 9, "type": "image/png", "width": 4, "height": 3},
    FILE: {"file_id": FILE_ID, "size": 9, "type": "application/pdf", "name": "a b.pdf"},
    VOICE: {"file_id": FILE_ID, "size": 9, "type": "audio/ogg", "duration_ms": 1500},
    VIDEO: {"file_id": FILE_ID, "size": 9, "type": "video/mp4", "duration_ms": 1500, "width": 4},
}
kinds = pytest.mark.parametrize("kind", GOOD)


def test_a_text_is_any_text() -> None:
    assert check_content(TEXT, "{", None) is None
    assert check_content(TEXT, "see there", FILE_ID) == FILE_ID


@kinds
def test_media_name_their_file(kind: int) -> None:
    text = json.dumps(GOOD[kind] | {"theirs": [1]})
    assert check_content(kind, text, None) == FILE_ID
    assert check_content(kind, text, FILE_ID) == FILE_ID


def refused(kind: int, text: str, file_id: str | None = None) -> str | None:
    with pytest.raises(BadRequest) as caught:
        check_content(kind, text, file_id)
    return caught.value.field


@kinds
@pytest.mark.parametrize("missing", ["file_id", "size", "type"])
def test_what_is_missing_is_named(kind: int, missing: str) -> None:
    content = {k: v for k, v in GOOD[kind].items() if k != missing}
    assert refused(kind, json.dumps(content)) == f"content.{missing}"


@kinds
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file_id", "a/b"),
        ("file_id", 5),
        ("size", 0),
        ("size", "9"),
        ("type", "png"),
        ("type", "image/png; charset=x"),
        ("name", "../x"),
        ("name", "a\nb"),
        ("name", ""),
        ("width", 0),
        ("duration_ms", -1),
    ],
)
def test_what_is_wrong_is_named(kind: int, field: str, value: object) -> None:
    needed = {"width": {IMAGE, VIDEO}, "duration_ms": {VOICE, VIDEO}}.get(field, set(GOOD))
    if kind in needed:
        assert refused(kind, json.dumps(GOOD[kind] | {field: value})) == f"content.{field}"


@pytest.mark.parametrize(
    ("kind", "missing"), [(IMAGE, "width"), (IMAGE, "height"), (VOICE, "duration_ms")]
)
def test_dimensions_and_duration_are_needed(kind: int, missing: str) -> None:
    content = {k: v for k, v in GOOD[kind].items() if k != missing}
    assert refused(kind, json.dumps(content)) == f"content.{missing}"


@pytest.mark.parametrize("kind", [IMAGE, VOICE, VIDEO])
def test_a_type_of_another_family_is_refused(kind: int) -> None:
    assert refused(kind, json.dumps(GOOD[kind] | {"type": "text/html"})) == "content.type"


@kinds
@pytest.mark.parametrize(
    "text",
    ["", "a picture", "[]", "5", "null", '"\\ud800"', '{"a":1e400}', "[" * 2000, "{" * 70],
)
def test_what_is_no_json_object_is_refused(kind: int, text: str) -> None:
    assert refused(kind, text) == "content"


def test_nesting_is_limited() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert refused(FILE, json.dumps(GOOD[FILE])[:-1] + f',"x":{deep}}}') == "content"


@kinds
def test_another_file_than_the_contents_is_refused(kind: int) -> None:
    assert refused(kind, json.dumps(GOOD[kind]), "f-2") == "file_id"


def test_an_empty_text_is_refused() -> None:
    assert refused(TEXT, "") == "content"
