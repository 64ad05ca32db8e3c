"""The one path from a command's bytes to its answer: decode → handle → append and publish → encode.

Every host calls this; so a handler behaves the same in a test, on NATS and behind HTTP.
"""

import logging

import msgspec

from shared.bus import Bus
from shared.errors import AppError, BadRequest, Internal, Unavailable
from shared.function import Context, Handler
from shared.log import REQUESTS, LogWriter, NotAppendedError

log = logging.getLogger(__name__)
_encode = msgspec.json.encode


async def invoke(
    handler: Handler, payload: bytes, ctx: Context, bus: Bus, writer: LogWriter | None
) -> bytes | None:
    """Runs one command. Returns the bare `data` as JSON, or None if the reader of the log will answer.

    Raises: AppError, and nothing else.
    """
    try:
        outcome = await handler.handle(_decode(handler, payload), ctx)
        for request in outcome.requests:
            assert writer is not None, (
                f"{handler.command.type} appends, but its function opened no log"
            )
            await writer.append(REQUESTS, request.conversation_id, _encode(request))
        for push in outcome.pushes:
            _publish(bus, push.subject, push.frame)
        if outcome.error is not None:
            raise outcome.error
    except AppError:
        raise
    except NotAppendedError as error:
        log.warning("%s not appended: %s", handler.command.type, error)
        raise Unavailable("the message log is not reached; nothing happened") from None
    except Exception:
        log.exception("%s failed (trace %s)", handler.command.type, trace_id(ctx.traceparent))
        raise Internal from None
    return None if outcome.reply is None else _encode(outcome.reply)


def _decode(handler: Handler, payload: bytes) -> object:
    try:
        return handler.decode(payload or b"{}")
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise BadRequest(what, field=path.rstrip("`").lstrip(".") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not valid JSON: {str(error)[:200]}") from None


def _publish(bus: Bus, subject: str, frame: bytes) -> None:
    try:
        bus.send(subject, frame)
    except Unavailable:
        # The change itself stands; clients that missed the push learn of it when they catch up.
        log.warning("push on %s lost: the bus is not reached", subject)


def trace_id(traceparent: str) -> str:
    """The trace id in a W3C traceparent, or ""."""
    return traceparent[3:35] if len(traceparent) >= 55 else ""
