"""Where a bridge sends events: `K_SINK`, over HTTP, one POST for each, and what its outcome means.

Nothing is sent twice here. A repeat is only safe where surely nothing was begun, and then the asker may do it himself.
"""

import logging
import re
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

import aiohttp
import msgspec

from shared import cloudevents
from shared.cloudevents import Event, MalformedError
from shared.errors import AppError, Internal, TooLarge, Unavailable, UnknownOutcome

log = logging.getLogger(__name__)

CONNECT_S = 3.0
KEEP_ALIVE_S = 30.0
"""Shorter than the other side keeps an idle connection: a POST must not meet one that is just being closed."""
MAX_ANSWER = 4 << 20

UNSENT = "the function is not reached right now; nothing happened"
UNKNOWN = "no answer of the function in time; repeat with the same client_msg_id"
BROKEN = "the connection to the function broke; repeat with the same client_msg_id"

# A proxy (Envoy) says 503 also when the connection broke after the request was sent.
_BEFORE_SENT = re.compile(rb"connection failure|connection timeout|overflow|no healthy upstream")
_MAYBE_SENT = re.compile(rb"before headers|upstream connect error|reset")


class Response(NamedTuple):
    """What the sink said: its status, the event in it if there is one, and otherwise its body."""

    status: int
    event: Event | None
    body: bytes


class Sink:
    """POSTs events in binary mode. Use it as an async context manager."""

    def __init__(self, url: str, overrides: Mapping[str, str] | None = None) -> None:
        """`overrides`: extensions that every event gets (`K_CE_OVERRIDES`)."""
        self._url = url
        self._overrides = dict(overrides or {})
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            auto_decompress=False,
            headers={"User-Agent": "natterjack-bridge", "Prefer": "reply"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._http is not None
        await self._http.close()

    async def post(self, event: Event, timeout_s: float) -> Response:
        """Sends an event and waits for the response, whatever its status.

        Raises: Unavailable if it surely was not sent; UnknownOutcome if it may have been.
        """
        assert self._http is not None
        if self._overrides:
            event = msgspec.structs.replace(event, extensions=event.extensions | self._overrides)
        headers, body = cloudevents.write(event)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.content.read(MAX_ANSWER)
                if not response.content.at_eof():
                    raise UnknownOutcome("the answer of the function is too long")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            log.warning("the sink is not reached: %s", error)
            raise Unavailable(UNSENT) from None
        except TimeoutError:
            raise UnknownOutcome(UNKNOWN) from None
        except (aiohttp.ClientError, OSError) as error:
            log.warning("the connection to the sink broke: %s", str(error) or type(error).__name__)
            raise UnknownOutcome(BROKEN) from None
        try:
            answer, _ = cloudevents.read(response.headers, content)
        except MalformedError:
            answer = None
        return Response(response.status, answer, content)


def failure(response: Response) -> AppError:
    """What a response without an answer means for the command that was sent."""
    status, body = response.status, response.body[:1000]
    log.warning("the sink answered %d: %s", status, body[:200].decode("utf-8", "replace"))
    if status == 503:
        maybe = _MAYBE_SENT.search(body) and not _BEFORE_SENT.search(body)
        return UnknownOutcome(BROKEN) if maybe else Unavailable(UNSENT, retry_after_ms=500)
    if status in (404, 429):
        return Unavailable(
            UNSENT
        )  # the way to the function is missing, or full; its host says neither
    if status == 413:
        return TooLarge("larger than the function takes")
    if 400 <= status < 500 and status != 408:
        return Internal()  # the host took our event for malformed
    return UnknownOutcome(BROKEN)
