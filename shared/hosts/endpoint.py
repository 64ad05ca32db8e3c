"""What all faces of the function host share: one command being served, and the answers of `$SRV`.

Every face does the same for a command: checks who asks and until when, runs it under its numbers and its span.
"""

import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared import subjects, telemetry
from shared.errors import AppError, BadRequest, Forbidden, Unauthenticated
from shared.function import Context, Function, Handler
from shared.ids import random_token

VERSION = "0.1.0"
TRACEPARENT_LENGTH = 55
_MS = re.compile(r"[0-9]{1,16}")

Call = Callable[[Handler, bytes, Context[Any]], Awaitable[bytes | None]]
"""Runs one command: `shared.invoke` in this process, or a bridge to where the function runs.

Returns the answer, or None if the reader of the log will answer. Raises: AppError, and nothing else.
"""


@dataclass(slots=True)
class Endpoint:
    """One command's numbers, as `$SRV.STATS` reports them. `deps`: of its function, if that is in this process."""

    handler: Handler
    queue: str
    deps: object = None
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0

    async def run(
        self, call: Call, payload: bytes, ctx: Context[Any], kind: str = "nats"
    ) -> bytes | None:
        """Runs one command, timed, and under a span if it is sampled. Raises: AppError."""
        started = time.perf_counter_ns()
        span = None
        code, error = "ok", ""
        if telemetry.sampled(ctx.traceparent):
            span = self._span(ctx, kind)
            ctx = msgspec.structs.replace(ctx, traceparent=span.traceparent)
        try:
            return await call(self.handler, payload, ctx)
        except AppError as failure:
            code, error = failure.code, failure.code if failure.status >= 500 else ""
            raise
        finally:
            self.processing_ns += time.perf_counter_ns() - started
            if span is not None:
                span.end({"im.code": code}, error)

    def failed(self, error: AppError) -> None:
        """Counts an error."""
        self.errors += 1
        self.last_error = f"{error.status}:{error.message}"

    def wrong_identity(self, user_id: int) -> AppError | None:
        """Why this user may not even ask: most commands need one, log-in and its like must have none."""
        command = self.handler.command
        if (user_id == subjects.NOBODY) is command.by_nobody:
            return None
        if command.internal:
            return Forbidden(f"{command.type} is only for the edge itself")
        if command.anonymous:
            return BadRequest(f"{command.type} is only for those not logged in")
        return Unauthenticated(f"{command.type} needs a user")

    def _span(self, ctx: Context[Any], system: str) -> telemetry.Span:
        command = self.handler.command.type
        attributes = telemetry.messaging(
            system, "process", subjects.command(ctx.user_id, command)
        ) | {
            "messaging.destination.template": subjects.commands_of(command),
            "messaging.consumer.group.name": self.queue,
            "im.user_id": ctx.user_id,
        }
        return telemetry.start(f"process {command}", "consumer", ctx.traceparent, attributes)


def read_deadline(text: str) -> int:
    """Unix ms of a dead line as callers write it; 0 if it is none."""
    return int(text) if _MS.fullmatch(text) else 0


def read_token(text: str) -> str:
    """A caller's id that will stand in subjects and headers, or "" if it must not."""
    return text if text and subjects.is_token(text) else ""


@dataclass(slots=True)
class Service:
    """One function as a NATS service (ADR-32)."""

    function: Function[Any]
    endpoints: list[Endpoint]
    id: str = field(default_factory=random_token)
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z")
    )

    def ping(self) -> dict[str, object]:
        """Answer to `$SRV.PING`."""
        return self._identity("ping")

    def info(self) -> dict[str, object]:
        """Answer to `$SRV.INFO`."""
        return self._identity("info") | {
            "description": f"Natterjack function {self.function.name}",
            "endpoints": [_describe(e) for e in self.endpoints],
        }

    def stats(self) -> dict[str, object]:
        """Answer to `$SRV.STATS`."""
        return self._identity("stats") | {
            "started": self.started,
            "endpoints": [
                _describe(e)
                | {
                    "num_requests": e.requests,
                    "num_errors": e.errors,
                    "last_error": e.last_error,
                    "processing_time": e.processing_ns,
                    "average_processing_time": e.processing_ns // max(e.requests, 1),
                }
                | ({"data": e.handler.stats(e.deps)} if e.handler.stats and e.deps else {})
                for e in self.endpoints
            ],
        }

    def _identity(self, kind: str) -> dict[str, object]:
        return {
            "type": f"io.nats.micro.v1.{kind}_response",
            "name": self.function.name,
            "id": self.id,
            "version": VERSION,
            "metadata": _metadata(),
        }


def _describe(endpoint: Endpoint) -> dict[str, object]:
    command = endpoint.handler.command
    return {
        "name": command.type.replace(".", "-"),
        "subject": subjects.commands_of(command.type),
        "queue_group": endpoint.queue,
        "metadata": _metadata(),
    }


def _metadata() -> dict[str, str]:
    # A health check looks for the process on its own machine, which in a container has a name of its own.
    return {"host": socket.gethostname()}
