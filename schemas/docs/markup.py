"""Pieces of HTML for the reference page."""

import json
import re
from collections.abc import Sequence
from html import escape


def prose(text: str) -> str:
    """Paragraphs, with `code` between backticks."""
    return "".join(f"<p>{inline(part)}</p>" for part in text.split("\n\n") if part)


def inline(text: str) -> str:
    """Plain text with `code` between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def code(text: str) -> str:
    """A block of code."""
    return f"<pre><code>{escape(text, quote=False)}</code></pre>\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table; its cells are HTML already."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"

    return f"<table>\n{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>\n"


def compact(value: object) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
