"""Messages of the AsyncAPI document: WebSocket frames, and NATS payloads with their headers."""

from schemas.commands import COMMANDS
from schemas.docs.examples import TOKEN, example
from schemas.docs.model import Json, about, describe_errors, ref
from schemas.errors import MEANING, STATUS, ErrorBody
from schemas.events import EVENTS
from schemas.facts import FACTS, type_of
from schemas.types import Model

SOCKET_COMMANDS = tuple(c for c in COMMANDS if not c.by_nobody)

_ID: Json = {
    "description": "The client's own id of the command, back in its answer; null: none.",
    "type": ["string", "integer", "null"],
    "maxLength": 64,
}
_REQUEST_HEADERS: Json = {
    "type": "object",
    "properties": {
        "traceparent": {"type": "string", "description": "W3C trace context."},
        "Im-Conn": {
            "type": "string",
            "description": "Connection that is not to get the resulting push.",
        },
        "Im-Deadline": {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": "Unix time in ms after which the command is dropped unanswered.",
        },
    },
}
_FACT_HEADERS: Json = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "The fact's `id`."},
        "traceparent": {"type": "string", "description": "W3C trace context, if there is one."},
    },
    "required": ["Nats-Msg-Id"],
}


def socket_messages() -> Json:
    """Frames both ways: `command.…`, `ack.…`, `push.…` and the few that the edge handles itself."""
    token = {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]}
    messages = {
        "command.auth": _frame(
            "First frame of a connection without `?token=`; its answer is `ready`.",
            ["auth"],
            token,
            {"token": TOKEN},
        ),
        "command.ping": _frame(
            "Asks the edge for a sign of life.", ["ping"], None, None, answered=True
        ),
        "ack.ping": _frame("The answer to `ping`.", ["ack"], {"type": "object"}, {}, answered=True),
        "error": {
            "summary": "The command failed.",
            "description": describe_errors(MEANING),
            "payload": {
                "allOf": [
                    {
                        "type": "object",
                        "properties": {"type": {"const": "error"}, "id": _ID},
                        "required": ["type", "id"],
                    },
                    ref(ErrorBody),
                ]
            },
            "examples": [{"payload": {"type": "error", "id": "1", **example(ErrorBody)}}],
        },
    }
    for c in SOCKET_COMMANDS:
        names = [c.type, *c.aliases]
        messages[f"command.{c.type}"] = _frame(
            about(c.request), names, ref(c.request), example(c.request), answered=True
        )
        messages[f"ack.{c.type}"] = _frame(
            about(c.reply), ["ack"], ref(c.reply), example(c.reply), answered=True
        )
    for e in EVENTS:
        messages[f"push.{e.type}"] = _frame(about(e), [e.type], ref(e), example(e))
    return messages


def _frame(
    summary: str, types: list[str], data: Json | None, shown: object, *, answered: bool = False
) -> Json:
    """A WebSocket text frame `{"type", "id"?, "data"?}`."""
    properties: Json = {"type": {"enum": types}}
    payload: Json = {"type": types[0]}
    if answered:
        properties["id"] = _ID
        payload["id"] = "1"
    if data is not None:
        properties["data"] = data
        payload["data"] = shown
    return {
        "summary": summary.partition("\n\n")[0],
        "description": summary,
        "payload": {"type": "object", "properties": properties, "required": ["type"]},
        "examples": [{"payload": payload}],
    }


def bus_messages() -> Json:
    """NATS messages: bare `data` as the payload, the rest in headers."""
    messages: Json = {
        "failure": {
            "summary": "The command failed.",
            "description": describe_errors(MEANING),
            "headers": {
                "type": "object",
                "properties": {
                    "Nats-Service-Error": {"type": "string", "description": "The message."},
                    "Nats-Service-Error-Code": {
                        "description": "The HTTP status.",
                        "enum": sorted({str(s) for s in STATUS.values()}),
                    },
                },
                "required": ["Nats-Service-Error", "Nats-Service-Error-Code"],
            },
            "payload": ref(ErrorBody),
            "examples": [{"payload": example(ErrorBody)}],
        }
    }
    for c in COMMANDS:
        messages[f"request.{c.type}"] = {
            "summary": c.summary,
            "description": about(c.request),
            "headers": _REQUEST_HEADERS,
            "payload": ref(c.request),
            "examples": [{"payload": example(c.request)}],
        }
        messages[f"reply.{c.type}"] = _bare(c.reply)
    for fact in FACTS:
        messages[f"fact.{type_of(fact)}"] = _bare(fact) | {"headers": _FACT_HEADERS}
    return messages


def _bare(struct: type[Model]) -> Json:
    return {
        "summary": about(struct),
        "payload": ref(struct),
        "examples": [{"payload": example(struct)}],
    }
