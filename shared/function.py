"""What a function is: handlers bound to commands, and the lifespan of what they need.

A handler is a plain coroutine `handle(cmd, ctx) -> Outcome`. It does I/O only through `ctx.deps`; what is to happen
afterwards (append to the log, publish events) is data in its Outcome, carried out by `shared.invoke`.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from schemas.commands import BY_TYPE, Command
from schemas.events import Event
from schemas.messages import Message
from schemas.records import Request
from schemas.types import Model
from shared import subjects
from shared.errors import AppError

D = TypeVar("D")
R = TypeVar("R", bound=Model)


class Context(msgspec.Struct, Generic[D], frozen=True):
    """Who asks, and what the handler may use.

    user_id: acting user, from the subject (0: nobody). conn: connection that sent it, "" if none.
    session: session of the access token ("" if none); informative, grants nothing. reply: inbox of the asker.
    traceparent: W3C trace context. at: when it was accepted, Unix ms.
    """

    user_id: int
    deps: D
    at: int
    conn: str = ""
    session: str = ""
    reply: str = ""
    traceparent: str = ""


class Push(msgspec.Struct, frozen=True):
    """An event for a subject: `frame` is the text frame that clients receive, as JSON bytes."""

    subject: str
    frame: bytes


class Outcome(msgspec.Struct, Generic[R], frozen=True):
    """What a handler decided. `reply` None: the answer comes from the reader of the log, or is the `error`.

    error: what the caller hears although something was done (a stolen session was ended, say).
    """

    reply: R | None
    requests: tuple[Request, ...] = ()
    pushes: tuple[Push, ...] = ()
    error: AppError | None = None


Handle = Callable[[Any, Context[Any]], Awaitable[Outcome[Any]]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One command with its coroutine and its decoder."""

    command: Command
    handle: Handle
    decode: Callable[[bytes], Model]


@dataclass(frozen=True, slots=True)
class Function(Generic[D]):
    """A deployable unit.

    name: folder name, NATS queue group and service name. handlers: by command type.
    lifespan: opens what the handlers need from a `Resources` and yields it as `ctx.deps`.
    """

    name: str
    handlers: tuple[Handler, ...]
    lifespan: Callable[[Any], AbstractAsyncContextManager[D]] = field(repr=False)


def on(command_type: str, handle: Handle) -> Handler:
    """Binds a coroutine to a command of the table."""
    command = BY_TYPE[command_type]
    return Handler(command, handle, msgspec.json.Decoder(command.request).decode)


def frame(event: Event | Message, event_type: str) -> bytes:
    """The text frame of a push: `{"type": …, "data": …}`."""
    return b'{"type":"%b","data":%b}' % (
        event_type.encode(),
        msgspec.json.encode(event),
    )


def to_user(user_id: int, event: Event) -> Push:
    """An event for all devices of one user."""
    return Push(subjects.user(user_id), frame(event, event.type))
