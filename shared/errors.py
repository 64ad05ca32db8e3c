"""The errors that a caller sees. Each carries its code; the HTTP status follows from the code.

AppError
├── BadRequest         bad_request          the request itself is wrong (`field` names where)
├── Unauthenticated    unauthenticated      no valid token
├── Forbidden          forbidden            not yours to do
├── Blocked            blocked              one of the two has blocked the other
├── NotFriend          not_friend           only friends may do this
├── NotMember          not_member           only members of the group may do this
├── Muted              muted                muted in the group
├── NotFound           not_found
├── Conflict           conflict             it clashes with what is there
├── TooLarge           too_large
├── RateLimited        rate_limited         with `retry_after_ms`
├── Internal           internal             our fault; logged with the trace id
├── Unavailable        unavailable          nothing happened: try again
├── UnknownOutcome     unknown_outcome      it may have happened: repeat with the same client_msg_id
└── Relayed            whatever another process of ours has answered
"""

from typing import cast

import msgspec

from schemas.errors import STATUS, ErrorBody, ErrorCode
from schemas.types import Model


class AppError(Exception):
    """Base: `message` says what was wrong to the caller, never an inner detail."""

    code: ErrorCode = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        """HTTP status of this error's code."""
        return STATUS[self.code]

    def body(self, trace_id: str = "") -> bytes:
        """The ErrorBody as JSON."""
        return msgspec.json.encode(
            ErrorBody(self.code, self.message, trace_id, self.retry_after_ms, self.field)
        )


class BadRequest(AppError):
    """The request is malformed or breaks a limit."""

    code = "bad_request"


class Unauthenticated(AppError):
    """No valid token, or wrong credentials."""

    code = "unauthenticated"


class Forbidden(AppError):
    """The acting user has no right to this."""

    code = "forbidden"


class Blocked(AppError):
    """One of the two has blocked the other."""

    code = "blocked"


class NotFriend(AppError):
    """Only friends may do this."""

    code = "not_friend"


class NotMember(AppError):
    """Only members of the group may do this."""

    code = "not_member"


class Muted(AppError):
    """The acting user may not write in this group now."""

    code = "muted"


class NotFound(AppError):
    """What was named does not exist, or not for this user."""

    code = "not_found"


class Conflict(AppError):
    """It clashes with what is there: a taken name, another content under the same client_msg_id."""

    code = "conflict"


class TooLarge(AppError):
    """Longer than allowed."""

    code = "too_large"


class RateLimited(AppError):
    """Too many; `retry_after_ms` says when the next one passes."""

    code = "rate_limited"


class Internal(AppError):
    """A defect of ours. The message is always the same; the log has the cause under the trace id."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error; the trace id finds it in the server's log")


class Unavailable(AppError):
    """Nothing happened; the same request may be tried again."""

    code = "unavailable"


class UnknownOutcome(AppError):
    """No answer in time: it may have happened. Only a repeat under the same client_msg_id is safe."""

    code = "unknown_outcome"


class _Seen(Model):
    """What is looked at in an ErrorBody that is passed on; codes of later versions pass."""

    code: str
    message: str


class Relayed(AppError):
    """An error that another process of ours has answered; its body is passed on as it is."""

    def __init__(self, status: str, body: bytes) -> None:
        """`status`: as it stood in a header. A body that is none of ours is a defect, and nothing of it is shown."""
        try:
            seen = msgspec.json.decode(body, type=_Seen)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            status, body = "500", Internal().body()
            seen = msgspec.json.decode(body, type=_Seen)
        super().__init__(seen.message)
        self.code = cast(ErrorCode, seen.code)
        self._body = body
        known = len(status) == 3 and status.isdecimal() and status[0] in "45"
        self._status = int(status) if known else 500

    @property
    def status(self) -> int:
        """See `AppError.status`."""
        return self._status

    def body(self, _trace_id: str = "") -> bytes:
        """See `AppError.body`; the trace id stands in it already."""
        return self._body
