"""Spans of the sampled messages in a batch: one from the log to the pushes, one for the transaction with their rows.

Each message's trace is whole, though it shares its batch with others; what shares a transaction is linked.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec
from sqlalchemy import Dialect

from functions.timeline.pending import Pending, Traced
from functions.timeline.state import Accepted, Dead, Effect, Entry, Refused, Repeated
from schemas.messages import MessageAck
from schemas.records import AnyRequest
from shared import tables, telemetry
from shared.log import REQUESTS

_decode_ack = msgspec.json.Decoder(MessageAck).decode

Spans = dict[int, telemetry.Span]
"""By the identity of the request, which its effect has as well."""


def begin(entries: Iterable[Entry]) -> Spans:
    """Spans of the sampled records of a batch."""
    if not telemetry.tracing():
        return {}
    return {
        id(entry.request): _process(entry, entry.request)
        for entry in entries
        if entry.request is not None and telemetry.sampled(entry.request.trace)
    }


def finish(spans: Spans, effects: Iterable[Effect]) -> list[Traced]:
    """Ends the spans of these effects, which are published; returns those of new messages, for `Pending.traced`."""
    if not spans:
        return []
    traced: list[Traced] = []
    for effect in effects:
        span = spans.pop(id(effect.request), None)
        if span is None:
            continue
        if isinstance(effect, Dead | Refused):
            span.end(error=type(effect).__name__)
            continue
        if not isinstance(effect, Accepted | Repeated):
            span.end()
            continue
        ack = _decode_ack(effect.ack)
        repeated = int(isinstance(effect, Repeated))
        span.end({"im.msg_id": ack.msg_id, "im.seq": ack.seq, "im.repeated": repeated})
        if isinstance(effect, Accepted):
            traced.append(Traced(ack.msg_id, ack.conversation_id, effect.month, span.traceparent))
    return traced


@contextmanager
def inserting(parts: Iterable[Pending], dialect: Dialect) -> Iterator[None]:
    """A span for each sampled message of a transaction. The first one links to all others, they to the first."""
    parts = list(parts)
    traced = [one for part in parts for one in part.traced]
    if not traced:
        yield
        return
    rows: dict[int, int] = {}
    for part in parts:
        for month, messages in part.messages.items():
            rows[month] = rows.get(month, 0) + len(messages)
    with ExitStack() as stack:
        for one in traced:
            others = traced[1:] if one is traced[0] else traced[:1]
            stack.enter_context(_insert(one, others, rows[one.month], dialect))
        yield


def _process(entry: Entry, request: AnyRequest) -> telemetry.Span:
    record = entry.record
    client_msg_id: str = getattr(request, "client_msg_id", "")
    attributes = telemetry.on_log("process", REQUESTS) | {
        "messaging.consumer.group.name": "timeline",
        "messaging.destination.partition.id": str(record.partition),
        "im.offset": record.offset,
        "im.conversation_id": request.conversation_id,
    }
    if client_msg_id:
        attributes["im.client_msg_id"] = client_msg_id
    return telemetry.start(f"process {REQUESTS}", "consumer", request.trace, attributes)


def _insert(one: Traced, others: list[Traced], rows: int, dialect: Dialect) -> telemetry.Span:
    table = tables.message_table(one.month).name
    attributes: dict[str, str | int] = {
        "db.system.name": "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name,
        "db.operation.name": "INSERT",
        "db.collection.name": table,
        "db.query.summary": f"INSERT {table}",
        "im.msg_id": one.msg_id,
        "im.conversation_id": one.conversation_id,
    }
    if rows > 1:  # by the conventions a batch of one is none
        attributes["db.operation.batch.size"] = rows
    links = [other.traceparent for other in others]
    return telemetry.start(f"INSERT {table}", "client", one.traceparent, attributes, links=links)
