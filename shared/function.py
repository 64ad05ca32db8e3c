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
from schemas.facts import Fact, type_of
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
    traceparent: W3C trace context. at: when it was accepted, Unix ms. deadline: when the asker stops waiting, Unix ms
    (0: he did not say).
    """

    user_id: int
    deps: D
    at: int
    conn: str = ""
    session: str = ""
    reply: str = ""
    traceparent: str = ""
    deadline: int = 0

    def asked(self, conversation_id: str) -> dict[str, Any]:
        """What all records of the log say: who asked about which conversation, and where the answer goes."""
        return {
            "conversation_id": conversation_id,
            "user_id": self.user_id,
            "at": self.at,
            "reply": self.reply,
            "conn": self.conn,
            "trace": self.traceparent,
        }


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
Stats = Callable[[Any], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One command with its coroutine and its decoder. `stats`: numbers of its own for `$SRV.STATS`, from the deps."""

    command: Command
    handle: Handle
    decode: Callable[[bytes], Model]
    stats: Stats | None = None

    @property
    def name(self) -> str:
        """For logs."""
        return self.command.type


@dataclass(frozen=True, slots=True)
class FactHandler:
    """One fact of `im.v1.evt.>` with its coroutine and its decoder. Its Outcome has no reply.

    It comes at least once and in no certain order; what the handler raises makes it come again.
    """

    name: str
    handle: Handle
    decode: Callable[[bytes], Model]


@dataclass(frozen=True, slots=True)
class Function(Generic[D]):
    """A deployable unit.

    name: folder name, NATS queue group and service name. handlers: of its commands. facts: of the facts it follows.
    lifespan: opens what the handlers need from a `Resources` and yields it as `ctx.deps`.
    """

    name: str
    handlers: tuple[Handler, ...]
    lifespan: Callable[[Any], AbstractAsyncContextManager[D]] = field(repr=False)
    facts: tuple[FactHandler, ...] = ()


def on(command_type: str, handle: Handle, stats: Stats | None = None) -> Handler:
    """Binds a coroutine to a command of the table."""
    command = BY_TYPE[command_type]
    return Handler(command, handle, msgspec.json.Decoder(command.request).decode, stats)


def on_fact(fact: type[Fact], handle: Handle) -> FactHandler:
    """Binds a coroutine to a fact, `MessageSent` say."""
    return FactHandler(type_of(fact), handle, msgspec.json.Decoder(fact).decode)


def frame(event: Event | Message, event_type: str) -> bytes:
    """The text frame of a push: `{"type": …, "data": …}`."""
    return b'{"type":"%b","data":%b}' % (
        event_type.encode(),
        msgspec.json.encode(event),
    )


def to_user(user_id: int, event: Event) -> Push:
    """An event for all devices of one user."""
    return Push(subjects.user(user_id), frame(event, event.type))
