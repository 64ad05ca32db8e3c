"""Serves functions on a bus: one queue group per function, one subscription per command.

The same host runs on a real NATS server and, in tests, on the in-memory bus. It answers `$SRV` PING, INFO and STATS
as NATS services do (ADR-32), and speaks their error headers.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from shared import subjects
from shared.bus import Bus, pack_headers, read_headers
from shared.errors import AppError, Unavailable
from shared.function import Context, Function
from shared.hosts.endpoint import (
    TRACEPARENT_LENGTH,
    Call,
    Endpoint,
    Service,
    read_deadline,
    read_token,
)
from shared.ids import now_ms
from shared.invoke import invoke
from shared.log import LogWriter
from shared.telemetry import about, trace_id

log = logging.getLogger(__name__)

_SERVICE_INBOX = "_INBOX."


@dataclass(slots=True)
class HostStats:
    """What the host refused or dropped. foreign_reply: the answer would have gone to somebody else than the asker."""

    foreign_reply: int = 0
    bad_subject: int = 0
    late: int = 0
    overload: int = 0


class Host:
    """Runs handlers for the commands that arrive, at most `max_in_flight` at a time; more are told `unavailable`.

    An unbounded host would take from the queue group what its siblings could still serve in time.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        writer: LogWriter | None = None,
        call: Call | None = None,
        max_in_flight: int = 4096,
    ) -> None:
        """`writer`: the log, if a function appends. `call`: runs the commands elsewhere (a bridge) and always brings
        their answer, while of those run here some are answered by the reader of the log.
        """
        self.stats = HostStats()
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._call = call or partial(invoke, bus=bus, writer=writer)
        self._elsewhere = call is not None
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._sids: list[int] = []

    async def serve(self, function: Function[Any], deps: object) -> None:
        """Subscribes to the commands of `function`; returns when they are live."""
        service = Service(
            function,
            [Endpoint(handler, function.name, deps) for handler in function.handlers],
        )
        for endpoint in service.endpoints:
            subject = subjects.commands_of(endpoint.handler.command.type)
            self._sids.append(
                self._bus.listen(subject, partial(self._accept, endpoint, deps), function.name)
            )
        for verb, answer in (
            ("PING", service.ping),
            ("INFO", service.info),
            ("STATS", service.stats),
        ):
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{function.name}",
                f"$SRV.{verb}.{function.name}.{service.id}",
            ):
                self._sids.append(self._bus.listen(subject, partial(self._describe, answer)))
        await self._bus.flush()

    async def drain(self, timeout_s: float = 30.0) -> None:
        """Takes no new commands and returns when all that had arrived are answered, or after `timeout_s`."""
        for sid in self._sids:
            self._bus.unlisten(sid)
        self._sids.clear()
        if self._bus.connected:
            # Commands on their way to us when we unsubscribed arrive before the answer to this.
            await self._bus.flush()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout_s)
            if left:
                log.error(
                    "%d commands were still running after %.0f s and are given up",
                    len(left),
                    timeout_s,
                )
                for task in left:
                    task.cancel()
        if self._bus.connected:
            await self._bus.flush()

    @property
    def in_flight(self) -> int:
        """Commands being handled right now."""
        return len(self._tasks)

    def _accept(
        self,
        endpoint: Endpoint,
        deps: object,
        subject: str,
        reply: str,
        payload: bytes,
        block: bytes,
    ) -> None:
        """Checks what does not depend on the command, then hands over to a task."""
        user_id = subjects.acting_user(subject)
        if user_id is None:
            self.stats.bad_subject += 1
            return
        if reply and not subjects.reply_allowed(reply, user_id):
            self.stats.foreign_reply += 1
            return
        now = now_ms()
        headers = read_headers(block)
        deadline = read_deadline(headers.get("Im-Deadline", ""))
        if 0 < deadline < now:
            # The asker has already been told `unknown_outcome`; doing it now would only surprise him.
            self.stats.late += 1
            return
        ctx = Context(
            user_id,
            deps,
            now,
            read_token(headers.get("Im-Conn", "")),
            read_token(headers.get("Im-Session", "")),
            reply,
            headers.get("traceparent", "")[:TRACEPARENT_LENGTH],
            deadline,
        )
        endpoint.requests += 1
        if (wrong := endpoint.wrong_identity(user_id)) is not None:
            self._fail(endpoint, ctx, wrong)
        elif len(self._tasks) >= self._max_in_flight:
            self.stats.overload += 1
            self._fail(
                endpoint,
                ctx,
                Unavailable("too many commands at once; try again", retry_after_ms=200),
            )
        else:
            task = self._loop.create_task(self._run(endpoint, payload, ctx))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, endpoint: Endpoint, payload: bytes, ctx: Context[Any]) -> None:
        try:
            body = await endpoint.run(self._call, payload, ctx)
        except AppError as failure:
            self._fail(endpoint, ctx, failure)
        else:
            if body is not None and ctx.reply:
                self._answer(ctx, body, b"")

    def _fail(self, endpoint: Endpoint, ctx: Context[Any], error: AppError) -> None:
        endpoint.failed(error)
        if not ctx.reply or (error.code == "unknown_outcome" and not self._elsewhere):
            # Nobody can say; an answer may still come from the log's reader. The asker's dead line speaks for us.
            return
        self._answer(ctx, error.body(trace_id(ctx.traceparent)), error_headers(error))

    def _answer(self, ctx: Context[Any], body: bytes, headers: bytes) -> None:
        try:
            self._bus.send(ctx.reply, body, headers=headers)
        except Unavailable:
            log.warning("an answer was lost: the bus is not reached", extra=about(ctx.traceparent))
        except ValueError:
            log.exception("an answer was too large", extra=about(ctx.traceparent))

    def _describe(
        self,
        answer: Callable[[], dict[str, object]],
        _subject: str,
        reply: str,
        _payload: bytes,
        _block: bytes,
    ) -> None:
        if reply.startswith(_SERVICE_INBOX) and self._bus.connected:
            self._bus.send(reply, msgspec.json.encode(answer()))


def error_headers(error: AppError) -> bytes:
    """The header block of an error answer, as NATS services write it."""
    text = error.message.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
    return pack_headers({"Nats-Service-Error": text, "Nats-Service-Error-Code": str(error.status)})
