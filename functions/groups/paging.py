"""Cursors of lists: numbers with dots between them."""

from schemas.types import MAX_NUMBER
from shared.errors import BadRequest


def position(cursor: str | None, parts: int = 1) -> list[int]:
    """Where a page starts, zeros without a cursor. Raises: BadRequest."""
    if cursor is None:
        return [0] * parts
    texts = cursor.split(".")
    if len(texts) != parts or not all(map(_is_number, texts)):
        raise BadRequest("not a cursor of this list", field="cursor")
    return [int(text) for text in texts]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 17 and int(text) <= MAX_NUMBER
