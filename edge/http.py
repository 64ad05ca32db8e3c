"""`/api/v1/*`: every route of the command table, all by the same code.

A request's fields come from the path, from the query of a GET, and from a JSON object in the body.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from typing import Any

import msgspec
from aiohttp import web

from edge.answers import Answer, http_body
from edge.road import Road, identity
from schemas.commands import API_PREFIX, COMMANDS, Command, Route
from shared import subjects
from shared.auth import Claims, TokenVerifier
from shared.errors import BadRequest, TooLarge, Unauthenticated

MAX_BODY = 64 * 1024
"""Longest body of a request in bytes; a longer one is `too_large`."""
BODY_S = 30.0
"""How long a body may take to arrive: whoever sends it byte by byte must not hold a connection for ever."""
TRACE_ID: web.RequestKey[str] = web.RequestKey("trace_id", str)
CALLER: web.RequestKey[str] = web.RequestKey("caller", str)
"""The caller's `traceparent`, if it is a valid one."""

Handler = Callable[[web.Request], Awaitable[web.Response]]

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def add_command_routes(
    app: web.Application, road: Callable[[], Road], verifier: TokenVerifier
) -> None:
    """One route for each command that has one. `road` may raise Unavailable while there is none yet."""
    for command in COMMANDS:
        if command.route is not None:
            app.router.add_route(
                command.route.method,
                API_PREFIX + command.route.path,
                _handler(command, command.route, road, verifier),
            )


def bearer(headers: Mapping[str, str]) -> str:
    """The token of `Authorization: Bearer …`, or "" if the header is absent.

    Raises: Unauthenticated if it is there in another form.
    """
    value = headers.get("authorization", "")
    scheme, _, token = value.partition(" ")
    if value and scheme.lower() != "bearer":
        raise Unauthenticated("Authorization must be: Bearer <access token>")
    return token.strip()


def error_response(status: int, answer: Answer) -> web.Response:
    """An ErrorBody as a response."""
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, ceil((answer.retry_after_ms or 1000) / 1000)))
    elif status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=answer.body, status=status, headers=headers, content_type="application/json"
    )


def _handler(
    command: Command, route: Route, road: Callable[[], Road], verifier: TokenVerifier
) -> Handler:
    types = {field.encode_name: field.type for field in msgspec.structs.fields(command.request)}

    async def handle(request: web.Request) -> web.Response:
        claims: Claims | None = None
        if not command.anonymous:
            claims = verifier.verify(bearer(request.headers))
        data = _data(request, await _body(request), types)
        user_id = claims.sub if claims else subjects.NOBODY
        trace_id = request[TRACE_ID]
        answer = await road().request(
            command, user_id, data, identity(claims), trace_id, request[CALLER]
        )
        if answer.status:
            return error_response(answer.status, answer)
        return web.Response(
            body=http_body(answer.body, trace_id),
            status=route.status,
            content_type="application/json",
        )

    return handle


async def _body(request: web.Request) -> bytes:
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > MAX_BODY:
        raise TooLarge(f"a request's body has at most {MAX_BODY} bytes")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise BadRequest(f"the body was not complete within {BODY_S:.0f} s") from None


def _data(request: web.Request, body: bytes, types: dict[str, Any]) -> bytes:
    """The command's `data` as JSON. The function checks it; here only the texts of path and query get their types."""
    try:
        fields = _decode_object(body) if body else {}
    except msgspec.ValidationError:
        raise BadRequest("the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not valid JSON: {str(error)[:200]}") from None
    texts = _texts(request)
    if not texts:
        return body or b"{}"
    for name, text in texts.items():
        if name in types:
            try:
                value = msgspec.convert(text, types[name], strict=False)
            except msgspec.ValidationError as error:
                raise BadRequest(str(error), field=name) from None
            fields[name] = msgspec.Raw(_encode(value))
    return _encode(fields)


def _texts(request: web.Request) -> dict[str, str]:
    """Fields out of the query and the path, which wins."""
    texts: dict[str, str] = {}
    if request.method == "GET":
        for name, text in request.query.items():
            if name in texts:
                raise BadRequest("given more than once", field=name)
            texts[name] = text
    return texts | request.match_info
