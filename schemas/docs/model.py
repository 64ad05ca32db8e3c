"""What all documents share: which Structs there are, their JSON Schemas, errors, wording."""

import inspect
from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from schemas import records
from schemas.commands import COMMANDS, Command
from schemas.contents import CONTENTS
from schemas.errors import MEANING, STATUS, ErrorBody, ErrorCode
from schemas.events import EVENTS
from schemas.facts import FACTS
from schemas.types import Model

Json = dict[str, Any]

VERSION = "1.0.0"
"""Of the contract: the major number is the `v1` of routes and subjects.
"""

CLOSE_CODES = {
    1007: "A text frame was not UTF-8.",
    1009: "A frame was larger than 64 KiB.",
    1012: "The edge is going away (`draining` came first): connect again at once.",
    4401: "No valid token in time: get a new one, then connect again.",
    4408: "The client did not read fast enough: connect again and catch up.",
    4409: "The session has ended (`kicked` came first): do not reconnect, log in again.",
}

ROLES = (
    ("edge", "`im.v1.cmd.*.*.*`", "`im.v1.user.*` `im.v1.group.*` `_INBOX.e.>`"),
    (
        "function, timeline",
        "`im.v1.user.*` `im.v1.group.*` `im.v1.evt.>` `_INBOX.e.>` `_INBOX.u.>`, own `$JS`",
        "`im.v1.cmd.*.<domain>.*` in its own queue, `$SRV.>`, its own inbox",
    ),
    (
        "integrator, bot",
        "`im.v1.cmd.<uid>.<granted domains>.*`",
        "`im.v1.user.<uid>` `_INBOX.u.<uid>.>`, granted `im.v1.evt.…`",
    ),
)
"""Rights on NATS: role, may publish, may subscribe."""

REQUESTS: tuple[type[Model], ...] = tuple(c.request for c in COMMANDS)
REPLIES: tuple[type[Model], ...] = tuple(c.reply for c in COMMANDS)
RECORDS: tuple[type[Model], ...] = get_args(records.AnyRequest) or (records.AnyRequest,)


def structs() -> list[type[Model]]:
    """Every Struct of a wire: requests, replies, events, facts, records, contents of messages and the error body."""
    wires: tuple[type[Model], ...] = (
        *REQUESTS,
        *REPLIES,
        *EVENTS,
        *FACTS,
        *RECORDS,
        *CONTENTS.values(),
        ErrorBody,
    )
    return list(dict.fromkeys(wires))


def components(
    types: Iterable[type[Model]], ref_template: str = "#/components/schemas/{name}"
) -> Json:
    """JSON Schemas of the Structs and all that they hold, by name, sorted."""
    _, found = msgspec.json.schema_components(list(types), ref_template=ref_template)
    return {name: _tidy(found[name]) for name in sorted(found)}


def ref(struct: type[Model]) -> Json:
    """Reference to the component of a Struct."""
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def errors_of(command: Command) -> list[ErrorCode]:
    """All codes that the command may answer with, its own and those of every command, by status."""
    codes: set[ErrorCode] = {
        *command.errors,
        "bad_request",
        "internal",
        "unavailable",
        "unknown_outcome",
    }
    if not command.by_nobody:
        codes.add("unauthenticated")
    return [code for code in STATUS if code in codes]


def has_body(command: Command) -> bool:
    """Whether its fields come as a JSON body over HTTP (otherwise in path and query).

    Only GET has a query: what is deleted may need a password, and URLs end up in the logs of proxies.
    """
    route = command.route
    if route is None or route.method == "GET":
        return False
    return any(f"{{{name}}}" not in route.path for name in command.request.__struct_fields__)


def about(struct: type[Model]) -> str:
    """The docstring of a Struct, as plain paragraphs."""
    return inspect.cleandoc(struct.__doc__ or "")


def describe_errors(codes: Iterable[ErrorCode]) -> str:
    """A Markdown list of codes and their meaning."""
    return "\n".join(f"- `{code}`: {MEANING[code]}" for code in codes)


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _tidy(node: Any) -> Any:
    """Cleans descriptions: Python before 3.13 keeps the indentation of docstrings."""
    if isinstance(node, dict):
        return {
            key: inspect.cleandoc(value)
            if key == "description" and isinstance(value, str)
            else _tidy(value)
            for key, value in node.items()
        }
    return [_tidy(item) for item in node] if isinstance(node, list) else node
