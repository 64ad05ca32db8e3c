"""Checks what clients write in `content` and `extra`: what a strict reader stumbles over would cut receivers off."""

import re

import msgspec

from schemas.contents import CONTENTS, FAMILIES, TEXT, FileContent
from shared.errors import BadRequest

_MISSING = re.compile(r"missing required field `(\w+)`")

MAX_DEPTH = 64
"""Deepest nesting of JSON from clients; some parsers give up at 100."""


def check_content(msg_type: int, content: str, file_id: str | None) -> str | None:
    """Checks a message's content and returns the file that it holds (`file_id`, if it holds none by itself).

    Raises: BadRequest naming the field, `content.size` say.
    """
    if not content:
        raise BadRequest("an empty content", field="content")
    if msg_type == TEXT:
        return file_id
    media = _media(msg_type, content)
    family = FAMILIES.get(msg_type, "")
    if not media.type.lower().startswith(family):
        raise BadRequest(
            f"{media.type} does not begin with {family}, as msg_type {msg_type} has it",
            field="content.type",
        )
    if file_id is not None and file_id != media.file_id:
        raise BadRequest("another file_id than the content's", field="file_id")
    return media.file_id


def check_json(text: bytes, field: str) -> object:
    """JSON from a client, decoded. Raises: BadRequest naming `field`."""
    try:
        value: object = msgspec.json.decode(text)
        if _depth(value) > MAX_DEPTH:
            raise BadRequest(f"{field} is nested deeper than {MAX_DEPTH} levels", field=field)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"{field} is not valid JSON: {str(error)[:200]}", field=field) from None
    return value


def _media(msg_type: int, content: str) -> FileContent:
    value = check_json(content.encode(), "content")
    try:
        return msgspec.convert(value, CONTENTS[msg_type])
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        missing = _MISSING.search(what)
        path = f".{missing[1]}" if missing else path.rstrip("`")
        raise BadRequest(
            f"content of msg_type {msg_type}: {what}", field=f"content{path}"
        ) from None


def _depth(value: object) -> int:
    """Levels of arrays and objects in a decoded JSON value."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
