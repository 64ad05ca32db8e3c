"""Spans by the OpenTelemetry SDK, sent in batches by OTLP over HTTP. Imported only where traces have an endpoint."""

import asyncio
import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from shared.telemetry import Attributes, Kind

FLUSH_S = 3.0
"""How long an ending process waits for a collector that does not answer."""

_KINDS: dict[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class OtelSpan:
    """`shared.telemetry.Span`."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def end(self, attributes: Attributes | None = None, error: str = "") -> None:
        """See `Span.end`."""
        if attributes:
            self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not the exception itself: its text may quote what was being written.
        self.end(error=kind.__name__ if kind else "")


class OtelTracer:
    """`shared.telemetry.Tracer`. Every span that is asked for is kept: the edge has chosen already."""

    def __init__(self, service: str, endpoint: str, exporter: SpanExporter | None = None) -> None:
        """endpoint: base URL of the collector. exporter: another way out than OTLP."""
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": service, "service.namespace": "natterjack"}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        otlp = exporter or OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(otlp))
        self._tracer = self._provider.get_tracer("natterjack")

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str,
        attributes: Attributes,
        links: Sequence[str],
        start_ns: int | None,
    ) -> OtelSpan:
        """See `Tracer.start`. A parent that is no traceparent, which strangers may send, begins a new trace."""
        step = _context(parent)
        # Never the current context, in which another command's span might stand.
        around = Context()
        if step is not None and step.span_id:
            around = trace.set_span_in_context(NonRecordingSpan(step), around)
        elif step is not None:
            self._ids.next_trace_id = step.trace_id
        span = self._tracer.start_span(
            name,
            around,
            _KINDS[kind],
            attributes,
            [Link(to) for link in links if (to := _context(link)) is not None],
            start_ns,
        )
        return OtelSpan(span)

    def flush(self) -> None:
        """Sends all that has ended, and waits for it."""
        self._provider.force_flush()

    async def close(self) -> None:
        """See `Tracer.close`."""
        # The SDK would wait for half a minute, and the loop for its own threads even longer.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, FLUSH_S)


class _Ids(RandomIdGenerator):
    """The first span of a trace gets the trace's id from the edge, which has it in answers and headers."""

    def __init__(self) -> None:
        self.next_trace_id = 0

    def generate_trace_id(self) -> int:
        chosen, self.next_trace_id = self.next_trace_id, 0
        return chosen or super().generate_trace_id()


def _context(traceparent: str) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or not int(match[1], 16):
        return None
    return SpanContext(int(match[1], 16), int(match[2], 16), True, TraceFlags(TraceFlags.SAMPLED))
