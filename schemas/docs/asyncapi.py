"""AsyncAPI 3.0: the WebSocket of clients and the NATS subjects of integrators."""

from schemas.commands import COMMANDS, Command
from schemas.docs.async_messages import SOCKET_COMMANDS, bus_messages, socket_messages
from schemas.docs.model import (
    CLOSE_CODES,
    ROLES,
    VERSION,
    Json,
    components,
    describe_errors,
    errors_of,
    structs,
    table,
)
from schemas.events import (
    EDGE_EVENTS,
    EVENTS,
    Change,
    GroupMembers,
    Head,
    MessagePushed,
    TypingPushed,
)
from schemas.facts import FACTS, type_of

GROUP_EVENTS = tuple(
    e for e in EVENTS if issubclass(e, (MessagePushed, Change, Head, GroupMembers, TypingPushed))
)
GROUP_ONLY = (GroupMembers,)
BUS_EVENTS = tuple(e for e in EVENTS if e not in EDGE_EVENTS and e not in GROUP_ONLY)

WS_ABOUT = f"""JSON text frames of at most 64 KiB. The token comes as `?token=`, as
`Authorization: Bearer`, or in a first frame `auth` within 5 s. `ready` is the first push; catch up
with `message.sync` then, and on every `resync`. Each command is answered by one `ack` or `error`
with its `id`; answers may overtake each other. At most 64 commands of one connection may wait for
their answers; one more is `rate_limited`.

{table(("close code", "meaning"), CLOSE_CODES.items())}
"""
CMD_ABOUT = (
    "The acting user is the subject's `uid`, which the permissions of NATS vouch for. The answer "
    "goes to the request's reply subject, which must be an inbox `_INBOX.u.{uid}.…` of that user."
)
NATS_ABOUT = f"""Core NATS. {CMD_ABOUT}

{table(("role", "may publish", "may subscribe"), ROLES)}
"""
UID: Json = {"description": "Number of the acting user; 0 is nobody, whom only the edge may name."}


def asyncapi() -> Json:
    """The whole document."""
    sockets, bus = socket_messages(), bus_messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Natterjack",
            "version": VERSION,
            "description": f"{WS_ABOUT}\n{NATS_ABOUT}",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "ws": {"host": "localhost:8080", "protocol": "ws", "description": WS_ABOUT},
            "nats": {"host": "localhost:4222", "protocol": "nats", "description": NATS_ABOUT},
        },
        "channels": _channels(list(sockets), list(bus)),
        "operations": _operations(),
        "components": {"messages": sockets | bus, "schemas": components(structs())},
    }


def _channels(sockets: list[str], bus: list[str]) -> Json:
    query = {
        "type": "object",
        "properties": {"token": {"type": "string", "description": "Access token."}},
    }
    replies = [name for name in bus if not name.startswith(("request.", "fact."))]
    channels = {
        "ws": _channel("ws", "/ws", "One connection of one device.", sockets)
        | {"bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}}},
        "inbox": _channel(
            "nats", "_INBOX.u.{uid}.{token}", "Reply subject of a user's commands.", replies
        )
        | {
            "parameters": {
                "uid": UID,
                "token": {"description": "Anything unique, up to five parts."},
            }
        },
        "user": _channel(
            "nats",
            "im.v1.user.{uid}",
            "Events for all devices of one user; payloads are the finished frames.",
            [f"push.{e.type}" for e in BUS_EVENTS],
        )
        | {"parameters": {"uid": UID}},
        "group": _channel(
            "nats",
            "im.v1.group.{gid}",
            "Events for all members of one group; payloads are the finished frames. The header `Im-Members` is "
            "the `members_version` they are meant for: who knows an older one asks who is a member still.",
            [f"push.{e.type}" for e in GROUP_EVENTS],
        )
        | {"parameters": {"gid": {"description": "Number of the group."}}},
    }
    for c in COMMANDS:
        who = " Only the edge may send it, as user 0." if c.by_nobody else ""
        channels[f"cmd.{c.type}"] = _channel(
            "nats",
            f"im.v1.cmd.{{uid}}.{c.type}",
            f"{c.summary}.{who} {CMD_ABOUT}",
            [f"request.{c.type}"],
        ) | {"parameters": {"uid": UID}}
    for fact in FACTS:
        name = type_of(fact)
        channels[f"evt.{name}"] = _channel(
            "nats",
            f"im.v1.evt.{name}",
            "JetStream, stream `IM_EVT`: at least once, in order within each conversation.",
            [f"fact.{name}"],
        )
    return channels


def _channel(server: str, address: str, description: str, messages: list[str]) -> Json:
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operations() -> Json:
    operations: Json = {
        "ws.auth": _operation("receive", "ws", ["command.auth"]) | _reply("ws", ["push.ready"]),
        "ws.ping": _operation("receive", "ws", ["command.ping"]) | _reply("ws", ["ack.ping"]),
        "ws.push": _operation("send", "ws", [f"push.{e.type}" for e in EVENTS]),
        "user.push": _operation("send", "user", [f"push.{e.type}" for e in BUS_EVENTS]),
        "group.push": _operation("send", "group", [f"push.{e.type}" for e in GROUP_EVENTS]),
    }
    for c in SOCKET_COMMANDS:
        operations[f"ws.{c.type}"] = {
            **_operation("receive", "ws", [f"command.{c.type}"]),
            **_reply("ws", [f"ack.{c.type}", "error"]),
            **_about(c),
        }
    for c in COMMANDS:
        operations[f"nats.{c.type}"] = {
            **_operation("receive", f"cmd.{c.type}", [f"request.{c.type}"]),
            **_reply("inbox", [f"reply.{c.type}", "failure"]),
            **_about(c),
            "bindings": {"nats": {"queue": c.function, "bindingVersion": "0.1.0"}},
        }
    for name in map(type_of, FACTS):
        operations[f"evt.{name}"] = _operation("send", f"evt.{name}", [f"fact.{name}"])
    return operations


def _about(command: Command) -> Json:
    return {
        "summary": command.summary,
        "description": f"Errors:\n\n{describe_errors(errors_of(command))}",
    }


def _operation(action: str, channel: str, messages: list[str]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": _refs(channel, messages),
    }


def _reply(channel: str, messages: list[str]) -> Json:
    return {
        "reply": {
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": _refs(channel, messages),
        }
    }


def _refs(channel: str, messages: list[str]) -> list[Json]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
