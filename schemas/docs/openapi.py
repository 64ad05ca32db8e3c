"""OpenAPI 3.1: the commands with a route, and what the edge itself answers."""

from http import HTTPStatus
from itertools import groupby

from schemas.commands import API_PREFIX, CLIENT_COMMANDS, COMMANDS, Command, Route
from schemas.contents import CONTENTS
from schemas.docs.examples import example
from schemas.docs.model import (
    CLOSE_CODES,
    VERSION,
    Json,
    about,
    components,
    describe_errors,
    errors_of,
    has_body,
    ref,
    table,
)
from schemas.errors import STATUS, ErrorBody

INFO = f"""Every answer is `{{"code": "ok", "data": …, "trace_id": …}}`, or has another `code`.

Every command that needs a token can also be sent over the WebSocket `/ws`, with its operation id as
`type`; the AsyncAPI document (`/asyncapi.json`) describes that. `/ws` closes with

{table(("code", "meaning"), CLOSE_CODES.items())}
"""


def openapi() -> Json:
    """The whole document."""
    paths: Json = {}
    for command in COMMANDS:
        if command.route is not None:
            path = paths.setdefault(API_PREFIX + command.route.path, {})
            path[command.route.method.lower()] = _operation(command, command.route)
    shared = components(
        [
            t
            for c in COMMANDS
            if c.route
            for t in ((c.request, c.reply) if has_body(c) else (c.reply,))
        ]
        + [*CONTENTS.values(), ErrorBody]
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Natterjack",
            "version": VERSION,
            "summary": "HTTP face of the messenger",
            "description": INFO,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The edge that serves this document"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(_tag(c) for c in CLIENT_COMMANDS)]
        + [{"name": "edge"}],
        "security": [{"bearer": []}],
        "paths": paths | _edge_paths(),
        "components": {
            "schemas": shared,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "`access_token` of `auth.login` or `auth.refresh`.",
                },
                "query_token": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "The same token: browsers cannot set headers on a WebSocket.",
                },
            },
        },
    }


def _tag(command: Command) -> str:
    return command.type.partition(".")[0]


def _operation(command: Command, route: Route) -> Json:
    operation: Json = {
        "operationId": command.type,
        "tags": [_tag(command)],
        "summary": command.summary,
        "description": about(command.request),
        "responses": {str(route.status): _success(command)} | _errors(command),
    }
    if command.anonymous:
        operation["security"] = []
    parameters = _parameters(command, route)
    if parameters:
        operation["parameters"] = parameters
    if has_body(command):
        operation["requestBody"] = {
            "required": bool(_schema(command)["required"]),
            "content": {
                "application/json": {
                    "schema": ref(command.request),
                    "example": example(command.request),
                }
            },
        }
    return operation


def _schema(command: Command) -> Json:
    schema: Json = components([command.request])[command.request.__name__]
    return schema


def _parameters(command: Command, route: Route) -> list[Json]:
    """Path parts, and the other fields as query where there is no body."""
    schema = _schema(command)
    parameters = []
    for name, field in schema["properties"].items():
        in_path = f"{{{name}}}" in route.path
        if not in_path and has_body(command):
            continue
        plain = _not_null(field)
        parameter: Json = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path or name in schema["required"],
            "schema": {key: value for key, value in plain.items() if key != "description"},
        }
        if "description" in plain:
            parameter["description"] = plain["description"]
        parameters.append(parameter)
    return parameters


def _not_null(field: Json) -> Json:
    """A path or query cannot say null: the field is just left out."""
    options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else field


def _success(command: Command) -> Json:
    envelope = {
        "type": "object",
        "properties": {
            "code": {"const": "ok"},
            "data": ref(command.reply),
            "trace_id": {"type": "string"},
        },
        "required": ["code", "data", "trace_id"],
    }
    shown = {
        "code": "ok",
        "data": example(command.reply),
        "trace_id": example(ErrorBody)["trace_id"],
    }
    return {
        "description": about(command.reply),
        "content": {"application/json": {"schema": envelope, "example": shown}},
    }


def _errors(command: Command) -> Json:
    """One response per status; each lists its codes."""
    codes = errors_of(command)
    if has_body(command):
        codes = sorted({*codes, "too_large"}, key=list(STATUS).index)
    return {
        str(status): {
            "description": describe_errors(same),
            "content": {"application/json": {"schema": ref(ErrorBody)}},
        }
        for status, same in groupby(codes, STATUS.__getitem__)
    }


def _edge_paths() -> Json:
    error = {"application/json": {"schema": ref(ErrorBody)}}
    return {
        "/healthz": {"get": _plain("health", "Whether the process lives")},
        "/readyz": {
            "get": _plain("ready", "Whether the edge takes clients")
            | {
                "responses": {
                    "200": {"description": "It does."},
                    "503": {"description": "The bus is not reached, or the edge is draining."},
                }
            }
        },
        "/metrics": {"get": _plain("metrics", "Prometheus metrics of all workers", "text/plain")},
        "/openapi.json": {"get": _plain("openapi", "This document", "application/json")},
        "/asyncapi.json": {
            "get": _plain("asyncapi", "WebSocket and NATS (AsyncAPI 3)", "application/json")
        },
        "/docs": {"get": _plain("docs", "The API reference for people", "text/html")},
        "/ws": {
            "get": {
                "operationId": "edge.ws",
                "tags": ["edge"],
                "summary": "Open a WebSocket",
                "description": "Upgrade to a WebSocket of JSON text frames. The token comes in the "
                'query, in the header, or in the first frame `{"type":"auth","data":{"token":…}}` '
                "within 5 s. A bad one is told after the upgrade, with close code 4401: browsers "
                "do not see HTTP statuses.",
                "security": [{"query_token": []}, {"bearer": []}, {}],
                "responses": {
                    str(HTTPStatus.SWITCHING_PROTOCOLS.value): {
                        "description": "The WebSocket is open."
                    },
                    "400": {"description": "Not a WebSocket handshake.", "content": error},
                },
            }
        },
    }


def _plain(name: str, summary: str, content_type: str | None = None) -> Json:
    content: Json = {"content": {content_type: {}}} if content_type else {}
    return {
        "operationId": f"edge.{name}",
        "tags": ["edge"],
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": summary + "."} | content},
    }
