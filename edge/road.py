"""Commands to NATS and their answers back: the one way that both faces take."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import getrandbits

from edge.answers import Answer, read_answer, refusal
from edge.stats import Stats
from schemas.commands import Command
from shared import subjects, telemetry
from shared.auth import Claims
from shared.bus import Inbox
from shared.errors import AppError, TooLarge, Unavailable
from shared.ids import now_ms

OnAnswer = Callable[[Answer], None]


def new_trace_id() -> str:
    """A W3C trace id: 128 random bits in hex."""
    return f"{getrandbits(128):032x}"


def identity(claims: Claims | None, connection_id: str = "") -> bytes:
    """The headers that tell a function who asks from where; the same for all commands of a connection."""
    conn = f"Im-Conn: {connection_id}\r\n" if connection_id else ""
    session = f"Im-Session: {claims.sid}\r\n" if claims else ""
    return f"{conn}{session}\r\n".encode()


def _span(command: Command, user_id: int, trace_id: str, caller: str) -> telemetry.Span:
    """The first span of a command that is sampled; the caller's is its parent if he samples as well."""
    attributes: telemetry.Attributes = {"im.command": command.type, "im.user_id": user_id}
    parent = caller if telemetry.sampled(caller) else f"00-{trace_id}-{0:016x}-01"
    return telemetry.start(command.type, "server", parent, attributes)


def _end(span: telemetry.Span, on_answer: OnAnswer, answer: Answer) -> None:
    # Only what is our fault is an error; a refusal is an answer.
    span.end({"im.code": answer.code}, answer.code if answer.status >= 500 else "")
    on_answer(answer)


class Road:
    """Sends commands, each with a dead line and a trace, and counts their answers."""

    def __init__(self, inbox: Inbox, stats: Stats) -> None:
        self._inbox = inbox
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self.draining = False
        """Set when this process is going away: new commands are refused, those on their way are answered."""

    def ask(
        self,
        command: Command,
        user_id: int,
        data: bytes,
        who: bytes,
        on_answer: OnAnswer,
        trace_id: str = "",
        caller: str = "",
    ) -> None:
        """Sends one command; `on_answer` is called exactly once, perhaps before this returns.

        who: from `identity`. trace_id: of the caller's trace, "" for a new one. caller: his traceparent, if any.
        """
        trace_id = trace_id or new_trace_id()
        span_id, flags = b"%016x" % getrandbits(64), b"00"
        if telemetry.chosen(caller):
            span = _span(command, user_id, trace_id, caller)
            span_id, flags = span.traceparent[36:52].encode(), b"01"
            on_answer = partial(_end, span, on_answer)
        started = self._loop.time()
        try:
            if self.draining:
                raise Unavailable("this server is going away; connect again")
            self._inbox.ask(
                subjects.command(user_id, command.type),
                data,
                command.deadline_ms / 1000,
                partial(self._answered, command.type, trace_id, started, on_answer),
                b"NATS/1.0\r\ntraceparent: 00-%b-%b-%b\r\nIm-Deadline: %d\r\n%b"
                % (
                    trace_id.encode(),
                    span_id,
                    flags,
                    now_ms() + command.deadline_ms,
                    who,
                ),
                patient=command.logged,
            )
        except Unavailable as error:
            self._refuse(command, error, trace_id, on_answer)
        except ValueError:
            # Only where NATS is set to take less than our own limit.
            self._refuse(command, TooLarge("larger than the bus takes"), trace_id, on_answer)

    async def request(
        self,
        command: Command,
        user_id: int,
        data: bytes,
        who: bytes,
        trace_id: str,
        caller: str = "",
    ) -> Answer:
        """`ask`, awaited."""
        future: asyncio.Future[Answer] = self._loop.create_future()

        def settle(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        self.ask(command, user_id, data, who, settle, trace_id, caller)
        return await future

    async def drained(self) -> None:
        """Returns when every command on its way has its answer."""
        if len(self._inbox):
            await self._idle.wait()

    def _refuse(
        self, command: Command, error: AppError, trace_id: str, on_answer: OnAnswer
    ) -> None:
        answer = refusal(error, trace_id)
        self._stats.command(command.type).count(answer.code, 0.0)
        on_answer(answer)

    def _answered(
        self,
        command_type: str,
        trace_id: str,
        started: float,
        on_answer: OnAnswer,
        payload: bytes | None,
        headers: bytes,
    ) -> None:
        answer = read_answer(payload, headers, trace_id)
        self._stats.command(command_type).count(answer.code, self._loop.time() - started)
        on_answer(answer)
        if self.draining and not len(self._inbox):
            self._idle.set()
