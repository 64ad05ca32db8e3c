"""What can go wrong, as exceptions that mirror the error codes of the contract.

ApiError                 the server's answer: code, message, trace_id, retry_after_ms, field
├── BadRequest, Unauthenticated, NotFound, Conflict, TooLarge
├── Forbidden            also `blocked`, `not_friend`, `not_member`, `muted`
└── Transient            worth a repeat
    ├── RateLimited      nothing happened; wait `retry_after_ms`
    ├── Unavailable      nothing happened
    └── UnknownOutcome   it may have happened: repeat it under the same client_msg_id
ConnectionLost           the socket went away before the answer came: the outcome is unknown
ClientClosed             the client was closed by its owner
SessionEnded             the server ended this session (close code 4409)
"""

from typing import Final

import msgspec


class ApiError(Exception):
    """An error answer. `code` is one of `schemas.errors.ErrorCode`, or one that a newer server knows."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        trace_id: str = "",
        retry_after_ms: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.trace_id = trace_id
        self.retry_after_ms = retry_after_ms
        self.field = field


class BadRequest(ApiError):
    """The request is malformed or breaks a limit; `field` names where."""


class Unauthenticated(ApiError):
    """No valid token, or wrong credentials."""


class Forbidden(ApiError):
    """The user has no right to this."""


class NotFound(ApiError):
    """What was named does not exist, or not for this user."""


class Conflict(ApiError):
    """It clashes with what is there: a taken name, another content under the same client_msg_id."""


class TooLarge(ApiError):
    """It is larger than the server takes."""


class Transient(ApiError):
    """A repeat may succeed."""


class RateLimited(Transient):
    """Too much at once; `retry_after_ms` says when to come back."""


class Unavailable(Transient):
    """Nothing happened: try again."""


class UnknownOutcome(Transient):
    """It may have happened: repeat it under the same client_msg_id, which makes the repeat harmless."""


class ConnectionLost(Exception):
    """The socket closed before the answer came."""


class ClientClosed(Exception):
    """The client was closed."""


class SessionEnded(Exception):
    """The session was logged out or revoked; only a new log-in helps."""


_BY_CODE: Final[dict[str, type[ApiError]]] = {
    "bad_request": BadRequest,
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "blocked": Forbidden,
    "not_friend": Forbidden,
    "not_member": Forbidden,
    "muted": Forbidden,
    "not_found": NotFound,
    "conflict": Conflict,
    "recall_window_passed": Conflict,
    "too_large": TooLarge,
    "rate_limited": RateLimited,
    "unavailable": Unavailable,
    "unknown_outcome": UnknownOutcome,
}


class ErrorFields(msgspec.Struct):
    """The fields of an error as they come, over HTTP and over the WebSocket.

    Laxer than `schemas.errors.ErrorBody`, so that a code of a newer server is still an error and not a riddle.
    """

    code: str = "internal"
    message: str = ""
    trace_id: str = ""
    retry_after_ms: int | None = None
    field: str | None = None

    def error(self) -> ApiError:
        """The exception of this code."""
        return _BY_CODE.get(self.code, ApiError)(
            self.code,
            self.message,
            trace_id=self.trace_id,
            retry_after_ms=self.retry_after_ms,
            field=self.field,
        )
