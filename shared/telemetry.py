"""Structured logs and traces. Never contents of messages, tokens or passwords.

Logs are one JSON object a line on stderr. Traces go to OTEL_EXPORTER_OTLP_ENDPOINT, for commands whose `traceparent`
says "sampled", which the edge decides. Without the endpoint nothing of OpenTelemetry is imported, and all that the
road pays is a call of `sampled` at each step.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from random import random
from types import TracebackType
from typing import Literal, Protocol, Self

from shared.settings import Settings

Attributes = Mapping[str, str | int]
Kind = Literal["server", "client", "producer", "consumer"]


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "service", "pid", "logger", "message", "trace_id"?, "error"?}`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON; an exception's traceback stands in `error`."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := getattr(record, "trace_id", ""):
            entry["trace_id"] = trace
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(service: str) -> None:
    """Sends all logs of this process to stderr. `IM_LOG_LEVEL` (info by default) sets how much.

    Libraries tell no details: aiosqlite's would be every statement with its rows.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    level = logging.getLevelNamesMapping().get(
        os.environ.get("IM_LOG_LEVEL", "info").upper(), logging.INFO
    )
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for package in ("edge", "functions", "shared"):
        logging.getLogger(package).setLevel(level)


def trace_id(traceparent: str) -> str:
    """The trace id in a W3C traceparent, or ""."""
    return traceparent[3:35] if len(traceparent) >= 55 else ""


def about(traceparent: str) -> dict[str, str]:
    """`extra` of a log record that concerns one command: `log.warning(…, extra=about(ctx.traceparent))`."""
    return {"trace_id": trace_id(traceparent)}


class Span(Protocol):
    """One step of a sampled trace. As a context manager it ends with the block, and notes its exception's type."""

    traceparent: str
    """Names this span as the parent of the next step."""

    def end(self, attributes: Attributes | None = None, error: str = "") -> None:
        """Ends the step now. `error`: why it failed, a code or the name of a type."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Tracer(Protocol):
    """Makes spans and sends them away: `shared.adapters.otel`."""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str,
        attributes: Attributes,
        links: Sequence[str],
        start_ns: int | None,
    ) -> Span:
        """See `start`."""

    async def close(self) -> None:
        """Sends what is left, for a few seconds at most."""


_tracer: Tracer | None = None
_share = 0.0
_log_system = ""
# The lowest bit of the flags says "sampled"; the others may grow a meaning.
_SAMPLED = frozenset("13579bdf")


def set_up_tracing(service: str, settings: Settings) -> None:
    """Lets this process make spans under the name `service`, if there is an endpoint. After a fork, not before it."""
    global _tracer, _share, _log_system  # noqa: PLW0603 - one of each a process, as of loggers
    if settings.otlp_endpoint:
        from shared.adapters.otel import OtelTracer  # noqa: PLC0415 - costs 0.3 s and 20 MB

        _tracer = OtelTracer(service, settings.otlp_endpoint)
        _share = settings.trace_sample
        _log_system = "kafka" if settings.log_url.startswith("kafka:") else "nats"


async def close_tracing() -> None:
    """Sends the last spans away."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer is not None:
        await tracer.close()


def chosen(caller: str) -> bool:
    """Whether a new command is to be sampled: if its caller's traceparent says so, or by lot. For the edge."""
    return _tracer is not None and (caller[54:55] in _SAMPLED or random() < _share)


def tracing() -> bool:
    """Whether this process makes spans at all: spares a batch the look at each of its records."""
    return _tracer is not None


def sampled(traceparent: str) -> bool:
    """Whether this process is to make spans for a command."""
    return _tracer is not None and traceparent[54:55] in _SAMPLED


def start(
    name: str,
    kind: Kind,
    parent: str,
    attributes: Attributes,
    *,
    links: Sequence[str] = (),
    start_ns: int | None = None,
) -> Span:
    """A span that begins now, or at `start_ns` (Unix). Only where `sampled` or `chosen` said so.

    parent: traceparent of the step before; with a parent id of zeros the span is the first of that trace. links:
    traceparents of other traces' steps that this one joins. attributes: ids yes; contents, tokens, passwords never.
    """
    assert _tracer is not None
    return _tracer.start(name, kind, parent, attributes, links, start_ns)


def on_log(operation: Literal["send", "process"], topic: str) -> dict[str, str | int]:
    """The messaging attributes of a span about a record of the log."""
    return messaging(_log_system, operation, topic)


def messaging(
    system: str, operation: Literal["send", "process"], destination: str
) -> dict[str, str | int]:
    """The attributes that OpenTelemetry's conventions want of any span about a message."""
    return {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
    }
