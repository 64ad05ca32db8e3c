"""Error codes, the same on every transport, with the HTTP status each one maps to."""

from typing import Annotated, Literal, get_args

from msgspec import Meta

from schemas.types import Model

ErrorCode = Literal[
    "bad_request",
    "unauthenticated",
    "forbidden",
    "blocked",
    "not_friend",
    "not_member",
    "muted",
    "not_found",
    "conflict",
    "recall_window_passed",
    "too_large",
    "rate_limited",
    "internal",
    "unavailable",
    "unknown_outcome",
]

STATUS: dict[ErrorCode, int] = {
    "bad_request": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "blocked": 403,
    "not_friend": 403,
    "not_member": 403,
    "muted": 403,
    "not_found": 404,
    "conflict": 409,
    "recall_window_passed": 409,
    "too_large": 413,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,  # nothing happened: try again
    "unknown_outcome": 504,  # it may have happened: repeat with the same client_msg_id
}
MEANING: dict[ErrorCode, str] = {
    "bad_request": "The request is malformed or breaks a limit; `field` names where.",
    "unauthenticated": "No valid access token, or wrong credentials.",
    "forbidden": "Not yours to do.",
    "blocked": "One of the two has blocked the other.",
    "not_friend": "Only friends may do this.",
    "not_member": "Only members of the group may do this.",
    "muted": "You may not write in this group now.",
    "not_found": "What was named does not exist, or not for you.",
    "conflict": "A taken name, or another content under the same `client_msg_id`.",
    "recall_window_passed": "Too late to take the message back.",
    "too_large": "Longer than allowed.",
    "rate_limited": "Too many; `retry_after_ms` says when the next one passes.",
    "internal": "A defect of the server; `trace_id` finds it in its log.",
    "unavailable": "Nothing happened: try again.",
    "unknown_outcome": "It may have happened: repeat with the same `client_msg_id`.",
}
assert set(STATUS) == set(MEANING) == set(get_args(ErrorCode))


class ErrorBody(Model):
    """An error: the body over NATS and HTTP.

    Over the WebSocket the same fields stand beside `type` and `id`.
    """

    code: ErrorCode
    message: Annotated[str, Meta(description="What was wrong, for people; its wording may change.")]
    trace_id: Annotated[str, Meta(description="Finds the request in the server's log.")] = ""
    retry_after_ms: Annotated[int, Meta(ge=0, description="When the next try may pass.")] | None = (
        None
    )
    field: Annotated[str, Meta(description="Path of the wrong field in the request.")] | None = None
