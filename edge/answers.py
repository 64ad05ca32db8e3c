"""What a function answered, told apart once for both faces, and the frames and bodies built from it.

The success body and the error body arrive as JSON and are spliced in as they are: the edge decodes neither
(only the small error body is looked into, for its code).
"""

from typing import NamedTuple

import msgspec

from schemas.types import Model
from shared.bus import ERROR_CODE, NO_RESPONDERS, header
from shared.errors import AppError, Internal, Unavailable, UnknownOutcome

NULL = b"null"


class Answer(NamedTuple):
    """code: "ok" or an error code. status: HTTP status of an error, 0 if ok. body: `data` or the ErrorBody, as JSON."""

    code: str
    status: int
    body: bytes
    retry_after_ms: int | None = None


class _Error(Model):
    """What the edge itself needs of an ErrorBody; codes it does not know yet pass."""

    code: str
    retry_after_ms: int | None = None


_decode_error = msgspec.json.Decoder(_Error).decode


def refusal(error: AppError, trace_id: str) -> Answer:
    """An error of the edge's own."""
    return Answer(error.code, error.status, error.body(trace_id), error.retry_after_ms)


def read_answer(payload: bytes | None, headers: bytes, trace_id: str) -> Answer:
    """The answer to a command out of a NATS reply; payload None: none came in time."""
    if payload is None:
        return refusal(
            UnknownOutcome("no answer in time; repeat with the same client_msg_id"), trace_id
        )
    if not headers:
        return Answer("ok", 0, payload)
    if headers.startswith(NO_RESPONDERS):
        return refusal(Unavailable("nobody serves this command right now"), trace_id)
    status = header(headers, ERROR_CODE)
    if not status:
        return Answer("ok", 0, payload)
    try:
        error = _decode_error(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return refusal(Internal(), trace_id)
    known = len(status) == 3 and status.isdecimal() and status[0] in "45"
    return Answer(error.code, int(status) if known else 500, payload, error.retry_after_ms)


def ack_message(request_id: bytes, data: bytes) -> bytes:
    """`{"type":"ack","id":…,"data":…}`."""
    return b'{"type":"ack","id":%b,"data":%b}' % (request_id, data or b"{}")


def error_message(request_id: bytes, error_body: bytes) -> bytes:
    """`{"type":"error","id":…,"code":…,…}`: the fields of the ErrorBody beside type and id."""
    return b'{"type":"error","id":%b,%b' % (request_id, error_body.lstrip()[1:])


def http_body(data: bytes, trace_id: str) -> bytes:
    """`{"code":"ok","data":…,"trace_id":…}`."""
    return b'{"code":"ok","data":%b,"trace_id":"%b"}' % (data or b"{}", trace_id.encode())
