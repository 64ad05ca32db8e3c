"""HTTP calls, built out of the table of commands: no code per route.

tokens = await api.call(Login("alice", "correct horse"), Tokens)
"""

from typing import Protocol
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from clients.python.natterjack.errors import (
    ApiError,
    ErrorFields,
    Unauthenticated,
    Unavailable,
    UnknownOutcome,
)
from clients.python.natterjack.frames import COMMAND_OF, Reply, decode_reply
from schemas.commands import API_PREFIX, Command
from schemas.types import Model

NO_CONTACT_S = 5.0
SPARE_S = 5.0
"""Seconds beyond the server's own dead line until the client stops waiting."""


class Authority(Protocol):
    """Where access tokens come from."""

    async def access_token(self) -> str:
        """One that should be good."""
        ...

    async def renew(self, rejected: str) -> str:
        """Another one, after the server refused `rejected`."""
        ...


class _Envelope(ErrorFields):
    data: msgspec.Raw = msgspec.Raw(b"{}")


class Api:
    """The HTTP half of the protocol. `authority` may be None for the calls that need no log-in."""

    def __init__(
        self, base_url: str, http: aiohttp.ClientSession, authority: Authority | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._authority = authority

    async def call(self, request: Model, reply: type[Reply]) -> Reply:
        """Carries out the command of this request Struct.

        Raises: ApiError as the server says; Unavailable if it cannot be reached; UnknownOutcome if its answer
        did not come.
        """
        command = COMMAND_OF[type(request)]
        if command.anonymous or self._authority is None:
            return await self._exchange(command, request, reply, {})
        token = await self._authority.access_token()
        try:
            return await self._exchange(command, request, reply, _bearer(token))
        except Unauthenticated:
            token = await self._authority.renew(token)
            return await self._exchange(command, request, reply, _bearer(token))

    async def _exchange(
        self, command: Command, request: Model, reply: type[Reply], headers: dict[str, str]
    ) -> Reply:
        method, path, body = _http_request(command, request)
        if body is not None:
            headers = headers | {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(
            total=command.deadline_ms / 1000 + SPARE_S, sock_connect=NO_CONTACT_S
        )
        try:
            async with self._http.request(
                method, self._base_url + path, data=body, headers=headers, timeout=timeout
            ) as response:
                payload = await response.read()
                status = response.status
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable("unavailable", f"cannot reach {self._base_url}: {error}") from error
        except aiohttp.InvalidURL as error:
            raise ApiError("bad_request", f"no such address: {self._base_url}") from error
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            raise UnknownOutcome(
                "unknown_outcome", f"no answer from {self._base_url}: {error!r}"
            ) from error
        envelope = _read_envelope(status, payload)
        if envelope.code != "ok":
            raise envelope.error()
        return decode_reply(envelope.data, reply)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _http_request(command: Command, request: Model) -> tuple[str, str, bytes | None]:
    """Method, path with query, and body: fields named in the path go there, the others to query or body."""
    route = command.route
    if route is None:
        raise ApiError("bad_request", f"{command.type} has no HTTP route")
    fields = msgspec.json.decode(msgspec.json.encode(request), type=dict[str, msgspec.Raw])
    path = route.path
    for name in [name for name in fields if f"{{{name}}}" in path]:
        path = path.replace(f"{{{name}}}", quote(_plain(fields.pop(name)), safe=""))
    if route.method not in ("GET", "DELETE"):
        return route.method, API_PREFIX + path, msgspec.json.encode(fields)
    query = urlencode({name: _plain(value) for name, value in fields.items()})
    return route.method, API_PREFIX + path + (f"?{query}" if query else ""), None


def _plain(value: msgspec.Raw) -> str:
    """A JSON scalar as it stands in a URL: strings without quotes, all else as JSON writes it."""
    text = bytes(value).decode()
    return msgspec.json.decode(text, type=str) if text.startswith('"') else text


def _read_envelope(status: int, payload: bytes) -> _Envelope:
    try:
        return msgspec.json.decode(payload, type=_Envelope)
    except msgspec.DecodeError:
        # A proxy's own page. What the server behind it did, nobody can tell, except when the proxy says
        # that it had none.
        code = (
            "unavailable" if status == 503 else "unknown_outcome" if status >= 500 else "internal"
        )
        return _Envelope(code=code, message=f"status {status} without an envelope")
