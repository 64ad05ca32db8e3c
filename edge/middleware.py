"""What holds for every HTTP request: a trace id, errors as JSON, CORS."""

import logging
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from edge.answers import refusal
from edge.http import CALLER, MAX_BODY, TRACE_ID, error_response
from edge.road import new_trace_id
from shared import telemetry
from shared.errors import AppError, BadRequest, Forbidden, Internal, NotFound, TooLarge

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, traceparent",
    "Access-Control-Max-Age": "86400",
}

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


def trace_id_of(traceparent: str) -> str:
    """The trace id that the caller's W3C `traceparent` names, or a new one."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else new_trace_id()


@web.middleware
async def errors_as_json(request: web.Request, handler: Next) -> web.StreamResponse:
    """Gives the request its trace id, and any failure the one shape of errors."""
    caller = request.headers.get("traceparent", "")
    trace_id = request[TRACE_ID] = trace_id_of(caller)
    request[CALLER] = caller if trace_id == telemetry.trace_id(caller) else ""
    headers: dict[str, str] = {}
    try:
        return await handler(request)
    except AppError as error:
        failure, status = error, error.status
    except web.HTTPRequestEntityTooLarge:
        failure = TooLarge(f"a request's body has at most {MAX_BODY} bytes")
        status = failure.status
    except web.HTTPNotFound:
        failure = NotFound(f"no such address: {request.path[:200]}")
        status = failure.status
    except web.HTTPMethodNotAllowed as error:
        failure = BadRequest(f"{request.method} is not possible on this address")
        status, headers = error.status, {"Allow": error.headers["Allow"]}
    except (web.HTTPClientError, web.RequestPayloadError) as error:
        failure, status = BadRequest(f"not a valid request: {error}"), 400
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path, extra={"trace_id": trace_id})
        failure = Internal()
        status = failure.status
    response = error_response(status, refusal(failure, trace_id))
    response.headers.update(headers)
    return response


def cors(origins: tuple[str, ...]) -> Middleware:
    """Answers preflights, and names the origin on every response, errors included.

    origins: exact ones, or `*`. Tokens travel in a header and never in cookies, so credentials are never allowed.
    """
    anybody = "*" in origins

    @web.middleware
    async def middleware(request: web.Request, handler: Next) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is None or not origins:
            return await handler(request)
        allowed = anybody or origin in origins
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            if not allowed:
                error = refusal(Forbidden("this origin is not allowed"), new_trace_id())
                return error_response(error.status, error)
            response: web.StreamResponse = web.Response(status=204, headers=_PREFLIGHT)
        else:
            response = await handler(request)
        if allowed:
            response.headers["Access-Control-Allow-Origin"] = "*" if anybody else origin
            response.headers["Access-Control-Expose-Headers"] = "Retry-After"
        if not anybody:
            response.headers.add("Vary", "Origin")
        return response

    return middleware


async def common_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Answers hold private data: no cache keeps them, no browser guesses their type."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "natterjack"
