"""Serves functions on a bus: one queue group per function, one subscription per command.

The same host runs on a real NATS server and, in tests, on the in-memory bus. It answers `$SRV` PING, INFO and STATS
as NATS services do (ADR-32), and speaks their error headers.
"""

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from shared import subjects, telemetry
from shared.bus import Bus, pack_headers, read_headers
from shared.errors import AppError, BadRequest, Forbidden, Unauthenticated, Unavailable
from shared.function import Context, Function, Handler
from shared.ids import now_ms, random_token
from shared.invoke import invoke
from shared.log import LogWriter
from shared.telemetry import about, trace_id

log = logging.getLogger(__name__)

VERSION = "0.1.0"
TRACEPARENT_LENGTH = 55
_MS = re.compile(r"[0-9]{1,16}")
_SERVICE_INBOX = "_INBOX."


@dataclass(slots=True)
class _Endpoint:
    """One command's numbers, as `$SRV.STATS` reports them."""

    handler: Handler
    queue: str
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0


@dataclass(slots=True)
class HostStats:
    """What the host refused or dropped. foreign_reply: the answer would have gone to somebody else than the asker."""

    foreign_reply: int = 0
    bad_subject: int = 0
    late: int = 0
    overload: int = 0


@dataclass(slots=True)
class _Service:
    function: Function[Any]
    endpoints: list[_Endpoint]
    id: str = field(default_factory=random_token)
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z")
    )


class Host:
    """Runs handlers for the commands that arrive, at most `max_in_flight` at a time; more are told `unavailable`.

    An unbounded host would take from the queue group what its siblings could still serve in time.
    """

    def __init__(
        self, bus: Bus, *, writer: LogWriter | None = None, max_in_flight: int = 4096
    ) -> None:
        self.stats = HostStats()
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._max_in_flight = max_in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._sids: list[int] = []
        self._services: list[_Service] = []

    async def serve(self, function: Function[Any], deps: object) -> None:
        """Subscribes to the commands of `function`; returns when they are live."""
        service = _Service(
            function,
            [_Endpoint(handler, function.name) for handler in function.handlers],
        )
        self._services.append(service)
        for endpoint in service.endpoints:
            subject = subjects.commands_of(endpoint.handler.command.type)
            self._sids.append(
                self._bus.listen(subject, partial(self._accept, endpoint, deps), function.name)
            )
        for verb, answer in (("PING", _ping), ("INFO", _info), ("STATS", _stats)):
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{function.name}",
                f"$SRV.{verb}.{function.name}.{service.id}",
            ):
                self._sids.append(
                    self._bus.listen(subject, partial(self._describe, service, answer))
                )
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
        endpoint: _Endpoint,
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
        deadline = headers.get("Im-Deadline", "")
        if _MS.fullmatch(deadline) and int(deadline) < now:
            # The asker has already been told `unknown_outcome`; doing it now would only surprise him.
            self.stats.late += 1
            return
        ctx = Context(
            user_id,
            deps,
            now,
            _token(headers.get("Im-Conn", "")),
            _token(headers.get("Im-Session", "")),
            reply,
            headers.get("traceparent", "")[:TRACEPARENT_LENGTH],
        )
        endpoint.requests += 1
        if (user_id == subjects.NOBODY) is not endpoint.handler.command.by_nobody:
            self._fail(endpoint, ctx, _wrong_identity(endpoint.handler))
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

    async def _run(self, endpoint: _Endpoint, payload: bytes, ctx: Context[Any]) -> None:
        started = time.perf_counter_ns()
        span = None
        code, error = "ok", ""
        if telemetry.sampled(ctx.traceparent):
            span = _span(endpoint, ctx)
            ctx = msgspec.structs.replace(ctx, traceparent=span.traceparent)
        try:
            body = await invoke(endpoint.handler, payload, ctx, self._bus, self._writer)
        except AppError as failure:
            code, error = failure.code, failure.code if failure.status >= 500 else ""
            self._fail(endpoint, ctx, failure)
        else:
            if body is not None and ctx.reply:
                self._answer(ctx, body, b"")
        finally:
            endpoint.processing_ns += time.perf_counter_ns() - started
            if span is not None:
                span.end({"im.code": code}, error)

    def _fail(self, endpoint: _Endpoint, ctx: Context[Any], error: AppError) -> None:
        endpoint.errors += 1
        endpoint.last_error = f"{error.status}:{error.message}"
        if error.code == "unknown_outcome" or not ctx.reply:
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
        service: _Service,
        answer: Callable[[_Service], dict[str, object]],
        _subject: str,
        reply: str,
        _payload: bytes,
        _block: bytes,
    ) -> None:
        if reply.startswith(_SERVICE_INBOX) and self._bus.connected:
            self._bus.send(reply, msgspec.json.encode(answer(service)))


def _span(endpoint: _Endpoint, ctx: Context[Any]) -> telemetry.Span:
    """Of a sampled command."""
    command = endpoint.handler.command.type
    attributes = telemetry.messaging("nats", "process", subjects.command(ctx.user_id, command)) | {
        "messaging.destination.template": subjects.commands_of(command),
        "messaging.consumer.group.name": endpoint.queue,
        "im.user_id": ctx.user_id,
    }
    return telemetry.start(f"process {command}", "consumer", ctx.traceparent, attributes)


def _token(text: str) -> str:
    """A caller's id that will stand in subjects and headers, or "" if it must not."""
    return text if text and subjects.is_token(text) else ""


def error_headers(error: AppError) -> bytes:
    """The header block of an error answer, as NATS services write it."""
    text = error.message.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")
    return pack_headers({"Nats-Service-Error": text, "Nats-Service-Error-Code": str(error.status)})


def _wrong_identity(handler: Handler) -> AppError:
    if handler.command.internal:
        return Forbidden(f"{handler.command.type} is only for the edge itself")
    if handler.command.anonymous:
        return BadRequest(f"{handler.command.type} is only for those not logged in")
    return Unauthenticated(f"{handler.command.type} needs a user")


def _identity(service: _Service, kind: str) -> dict[str, object]:
    return {
        "type": f"io.nats.micro.v1.{kind}_response",
        "name": service.function.name,
        "id": service.id,
        "version": VERSION,
        # A health check looks for the process on its own machine, which in a container has a name of its own.
        "metadata": {"host": socket.gethostname()},
    }


def _ping(service: _Service) -> dict[str, object]:
    return _identity(service, "ping")


def _info(service: _Service) -> dict[str, object]:
    return _identity(service, "info") | {
        "description": f"Natterjack function {service.function.name}",
        "endpoints": [_endpoint(e) for e in service.endpoints],
    }


def _stats(service: _Service) -> dict[str, object]:
    return _identity(service, "stats") | {
        "started": service.started,
        "endpoints": [
            _endpoint(e)
            | {
                "num_requests": e.requests,
                "num_errors": e.errors,
                "last_error": e.last_error,
                "processing_time": e.processing_ns,
                "average_processing_time": e.processing_ns // max(e.requests, 1),
            }
            for e in service.endpoints
        ],
    }


def _endpoint(endpoint: _Endpoint) -> dict[str, object]:
    command = endpoint.handler.command
    return {
        "name": command.type.replace(".", "-"),
        "subject": subjects.commands_of(command.type),
        "queue_group": endpoint.queue,
        # A health check looks for the process on its own machine, which in a container has a name of its own.
        "metadata": {"host": socket.gethostname()},
    }
