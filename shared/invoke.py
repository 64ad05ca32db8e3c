"""The one path from a command's bytes to its answer: decode → handle → append and publish → encode.

Every host calls this; so a handler behaves the same in a test, on NATS and behind HTTP.
"""

import logging
import re
from typing import Any

import msgspec

from schemas.records import Request
from shared import telemetry
from shared.bus import Bus
from shared.errors import AppError, BadRequest, Internal, Unavailable
from shared.function import Context, FactHandler, Handler
from shared.log import REQUESTS, LogWriter, NotAppendedError

log = logging.getLogger(__name__)
_encode = msgspec.json.encode
_MISSING = re.compile("missing required field `([^`]+)`").search
_AT_THE_END = r"$(?!\\n)"
"""How msgspec quotes what our patterns end in: `$` alone would let a line break through."""


async def invoke(
    handler: Handler | FactHandler,
    payload: bytes,
    ctx: Context[Any],
    bus: Bus,
    writer: LogWriter | None,
) -> bytes | None:
    """Runs one command or fact. Returns the bare `data` as JSON, or None if the reader of the log will answer.

    Raises: AppError, and nothing else.
    """
    try:
        outcome = await handler.handle(_decode(handler, payload), ctx)
        for request in outcome.requests:
            assert writer is not None, f"{handler.name} appends, but its function opened no log"
            if telemetry.sampled(request.trace):
                await _append_traced(writer, request)
            else:
                await writer.append(REQUESTS, request.conversation_id, _encode(request))
        for push in outcome.pushes:
            _publish(bus, push.subject, push.frame, ctx.traceparent)
        if outcome.error is not None:
            raise outcome.error
    except AppError:
        raise
    except NotAppendedError as error:
        log.warning(
            "%s not appended: %s",
            handler.name,
            error,
            extra=telemetry.about(ctx.traceparent),
        )
        raise Unavailable("the message log is not reached; nothing happened") from None
    except Exception:
        log.exception("%s failed", handler.name, extra=telemetry.about(ctx.traceparent))
        raise Internal from None
    return None if outcome.reply is None else _encode(outcome.reply)


def _decode(handler: Handler | FactHandler, payload: bytes) -> object:
    try:
        return handler.decode(payload or b"{}")
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        missing = _MISSING(what)
        names = (path.rstrip("`").lstrip("."), missing[1] if missing else "")
        what = what.replace(_AT_THE_END, "$")
        raise BadRequest(what, field=".".join(filter(None, names)) or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not valid JSON: {str(error)[:200]}") from None


async def _append_traced(writer: LogWriter, request: Request) -> None:
    """Appends under a span of its own, which the record names to its reader."""
    attributes = telemetry.on_log("send", REQUESTS) | {
        "im.conversation_id": request.conversation_id
    }
    with telemetry.start(f"send {REQUESTS}", "producer", request.trace, attributes) as span:
        traced = msgspec.structs.replace(request, trace=span.traceparent)
        await writer.append(
            REQUESTS, request.conversation_id, _encode(traced), trace=span.traceparent
        )


def _publish(bus: Bus, subject: str, frame: bytes, traceparent: str) -> None:
    try:
        bus.send(subject, frame)
    except Unavailable:
        # The change itself stands; clients that missed the push learn of it when they catch up.
        log.warning(
            "push on %s lost: the bus is not reached", subject, extra=telemetry.about(traceparent)
        )
