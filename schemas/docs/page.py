"""The API reference for people: one HTML page without any outside asset, served as `/docs`."""

import json
from html import escape
from urllib.parse import urlencode

from schemas.commands import API_PREFIX, CLIENT_COMMANDS, Command, Route
from schemas.contents import CONTENTS
from schemas.docs.examples import TOKEN, example
from schemas.docs.markup import code, compact, inline, prose, table
from schemas.docs.model import (
    CLOSE_CODES,
    ROLES,
    Json,
    about,
    components,
    errors_of,
    has_body,
)
from schemas.docs.style import STYLE
from schemas.errors import MEANING, STATUS, ErrorBody
from schemas.events import EVENTS

REQUESTS = [c.request for c in CLIENT_COMMANDS]
SCHEMAS = components(
    [*REQUESTS, *(c.reply for c in CLIENT_COMMANDS), *EVENTS, *CONTENTS.values(), ErrorBody],
    "{name}",
)
SHARED = [
    name
    for name in SCHEMAS
    if name not in {s.__name__ for s in (*REQUESTS, *EVENTS)} and SCHEMAS[name]["properties"]
]
"""Replies and what they hold: shown once each, linked from everywhere."""
NO_LINE_FEED = r"(?!\n)"
"""End of patterns that says to Python what `$` means everywhere else; noise for people."""


def page() -> str:
    """The whole page."""
    sections = [
        _start(),
        _socket(),
        _errors(),
        *(_command(c) for c in CLIENT_COMMANDS),
        _pushes(),
        _types(),
        _nats(),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Natterjack API</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{_menu()}\n<main>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def _menu() -> str:
    top = [("start", "Start"), ("websocket", "WebSocket"), ("errors", "Errors")]
    end = [("pushes", "Pushes"), ("types", "Types"), ("nats", "NATS")]
    commands = [(c.type, c.type) for c in CLIENT_COMMANDS]
    links = "".join(
        f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in top + commands + end
    )
    return f"<nav><strong>Natterjack API</strong>{links}</nav>"


def _start() -> str:
    return (
        '<section id="start"><h1>Natterjack API</h1>'
        + prose(
            f"One table of commands, three ways in: HTTP below `{API_PREFIX}`, JSON frames on the "
            "WebSocket `/ws`, and NATS subjects for integrators.\n\n"
            "Over HTTP, send `Authorization: Bearer <access_token>`; an answer is "
            '`{"code":"ok","data":…,"trace_id":…}` or `{"code":…,"message":…,"trace_id":…}`. '
            "Bodies and frames hold at most 64 KiB. Optional fields that hold their default are "
            "left out of answers; fields may be added at any time, so ignore those you do not know."
        )
        + '<p>For tools: <a href="/openapi.json">OpenAPI</a>, '
        '<a href="/asyncapi.json">AsyncAPI</a>.</p></section>'
    )


def _socket() -> str:
    return (
        '<section id="websocket"><h2>WebSocket</h2>'
        + prose("Connect to `/ws?token=<access_token>`, or send as the first frame within 5 s:")
        + code(compact({"type": "auth", "data": {"token": TOKEN}}))
        + prose(
            "The first push is `ready`. A command is `type`, `id` (yours: a string or an integer, "
            "comes back) and `data`; its answer is an `ack` or an `error`. `ping` is answered by "
            "an `ack` of the edge itself. At most 64 commands of one connection may wait for their "
            "answers; one more is `rate_limited`."
        )
        + code(
            compact({"type": "ack", "id": "1", "data": {}})
            + "\n"
            + compact({"type": "error", "id": "2", **example(ErrorBody)})
        )
        + table(
            ("close code", "meaning"),
            [(f"<code>{c}</code>", inline(m)) for c, m in CLOSE_CODES.items()],
        )
        + "</section>"
    )


def _errors() -> str:
    rows = [
        (f'<code id="error-{c}">{c}</code>', str(STATUS[c]), inline(MEANING[c])) for c in STATUS
    ]
    return (
        f'<section id="errors"><h2>Errors</h2>{table(("code", "HTTP", "meaning"), rows)}</section>'
    )


def _command(command: Command) -> str:
    parts = [
        f'<section id="{command.type}">',
        f"<h2>{escape(command.summary)} <code>{command.type}</code></h2>",
        _ways(command),
        prose(about(command.request)),
        _fields(command.request.__name__, "Request"),
        f"<h3>Reply {_link(command.reply.__name__)}</h3>",
        prose(about(command.reply)),
        code(json.dumps(example(command.reply), indent=2, ensure_ascii=False)),
        "<h3>Errors</h3><p>"
        + " ".join(f'<a href="#error-{c}"><code>{c}</code></a>' for c in errors_of(command))
        + f"</p><p><code>unknown_outcome</code> comes after {command.deadline_ms / 1000:g} s.</p>",
    ]
    if command.route is not None:
        parts += ["<h3>With curl</h3>", code(_curl(command, command.route))]
    if not command.anonymous:
        frame = {"type": command.type, "id": "1", "data": example(command.request)}
        parts += ["<h3>As a frame</h3>", code(compact(frame))]
    return "".join(parts) + "</section>"


def _ways(command: Command) -> str:
    ways = [f"NATS <code>im.v1.cmd.&lt;uid&gt;.{command.type}</code>"]
    if command.anonymous:
        ways = ["no token needed", "not over WebSocket"]
    for alias in command.aliases:
        ways.insert(0, f"also as <code>{alias}</code>")
    if command.route is not None:
        route = f"{command.route.method} {API_PREFIX}{command.route.path}"
        ways.insert(0, f"<code>{escape(route)}</code> → {command.route.status}")
    return f'<p class="ways">{" · ".join(ways)}</p>'


def _curl(command: Command, route: Route) -> str:
    data = example(command.request)
    path = route.path
    for name in [name for name in data if f"{{{name}}}" in path]:
        path = path.replace(f"{{{name}}}", str(data.pop(name)))
    query = f"?{urlencode(data)}" if data and not has_body(command) else ""
    lines = ["curl" if route.method == "GET" else f"curl -X {route.method}"]
    if not command.anonymous:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if has_body(command):
        body = compact(data).replace("'", r"'\''")
        lines += ["-H 'Content-Type: application/json'", f"-d '{body}'"]
    lines.append(f"'http://localhost:8080{API_PREFIX}{path}{query}'")
    return " \\\n  ".join(lines)


def _pushes() -> str:
    parts = [
        '<section id="pushes"><h2>Pushes</h2>',
        prose("Frames that the server sends by itself."),
    ]
    for event in EVENTS:
        frame = {"type": event.type, "data": example(event)}
        parts += [
            f'<h3 id="push-{event.type}"><code>{event.type}</code></h3>',
            prose(about(event)),
            _fields(event.__name__, ""),
            code(compact(frame)),
        ]
    return "".join(parts) + "</section>"


def _types() -> str:
    parts = ['<section id="types"><h2>Types</h2>']
    for name in SHARED:
        parts += [
            f'<h3 id="type-{name}">{name}</h3>',
            prose(SCHEMAS[name].get("description", "")),
            _fields(name, ""),
        ]
    return "".join(parts) + "</section>"


def _nats() -> str:
    rows = [tuple(inline(cell) for cell in row) for row in ROLES]
    return (
        '<section id="nats"><h2>NATS</h2>'
        + prose(
            "A request's payload is the bare `data`, and so is the answer's. Answers go only to "
            "`_INBOX.u.<uid>.…` of the acting user. An error has the headers `Nats-Service-Error` "
            "and `Nats-Service-Error-Code` (the HTTP status), and `ErrorBody` as its payload."
        )
        + table(("role", "may publish", "may subscribe"), rows)
        + "</section>"
    )


def _fields(name: str, title: str) -> str:
    """Table of a Struct's fields, or a line if it has none."""
    schema = SCHEMAS[name]
    head = f"<h3>{title}</h3>" if title else ""
    if not schema["properties"]:
        return head + "<p>No fields.</p>"
    rows = []
    for field, spec in schema["properties"].items():
        need = "required" if field in schema["required"] else _default(spec)
        rows.append((f"<code>{field}</code>", _type(spec), need, inline(_description(spec))))
    return head + table(("field", "type", "", "meaning"), rows)


def _default(spec: Json) -> str:
    value = spec.get("default")
    return "optional" if value is None else f"default <code>{escape(compact(value))}</code>"


def _description(spec: Json) -> str:
    options = [spec, *spec.get("anyOf", ())]
    return next((str(option["description"]) for option in options if "description" in option), "")


def _type(spec: Json) -> str:
    """Type and limits in words: `string, 1 to 64 characters`."""
    if "$ref" in spec:
        return _link(spec["$ref"])
    if "anyOf" in spec:
        return " or ".join(_type(option) for option in spec["anyOf"])
    if "enum" in spec:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in spec["enum"])
    if spec.get("type") == "array":
        most = f" (at most {spec['maxItems']})" if "maxItems" in spec else ""
        return f"list{most} of {_type(spec['items'])}"
    words = str(spec.get("type", "any JSON")) + _limits(spec)
    pattern = spec.get("pattern", "").removesuffix(NO_LINE_FEED)
    return words + (f" <code>{escape(pattern)}</code>" if pattern else "")


def _limits(spec: Json) -> str:
    for low, high, unit in (("minimum", "maximum", ""), ("minLength", "maxLength", " characters")):
        if low in spec and high in spec:
            return f", {spec[low]} to {spec[high]}{unit}"
        if low in spec or high in spec:
            return (
                f", at least {spec[low]}{unit}" if low in spec else f", at most {spec[high]}{unit}"
            )
    return ""


def _link(name: str) -> str:
    return f'<a href="#type-{name}">{name}</a>' if name in SHARED else name
