"""The HTTP server of a function process or a bridge: probes, and events where somebody takes them.

It listens before anything else is reached, so that whoever starts the process learns why it is not ready yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

from shared.errors import Unavailable
from shared.settings import SettingsError

log = logging.getLogger(__name__)

MAX_BODY = 2 << 20
"""Longest event in bytes: what NATS takes, and room for base64 and the envelope."""
KEEP_ALIVE_S = 120
"""Longer than proxies keep an idle connection: who closes first must not be the one who is about to be asked."""
CLOSE_S = 1.0
"""Longest wait for connections to end once all requests are answered. One that was accepted just then may never end by
itself: aiohttp forgets that it is closing it, and would wait a minute for a request that it does not read.
"""

OnEvent = Callable[[web.Request], Awaitable[web.Response]]


class Web:
    """`GET /healthz`, `GET /readyz` and `POST /` on one port, as an async context manager.

    ready: why the process is not ready, "" if it is. on_event: takes the POSTs; None: nothing is taken yet.
    """

    def __init__(self, port: int) -> None:
        self.ready: Callable[[], str] = lambda: "starting"
        self.on_event: OnEvent | None = None
        self._port = port
        self._draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_post("/", self._event)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=CLOSE_S,
        )
        self._site: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        """Listens on all addresses of this machine. Raises: SettingsError if it cannot."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "0.0.0.0", self._port, backlog=1024)
        try:
            await self._site.start()
        except OSError as error:
            raise SettingsError(f"PORT: cannot listen on {self._port}: {error}") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """Where it listens; of use if any free port was asked for."""
        return int(self._runner.addresses[0][1])

    async def drain(self, timeout_s: float) -> None:
        """Takes no new connections; returns when all requests are answered, or after `timeout_s`.

        Requests on connections that are open already are still served meanwhile, and their connections closed; later
        ones hear 503, since what would serve them is about to be closed.
        """
        self._draining = True
        if self._site is not None:
            await self._site.stop()
            self._site = None
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("%d requests were not answered in %.0f s", self._in_flight, timeout_s)  # noqa: TRY400
        self.on_event, self.ready = None, lambda: "draining"

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        if why := "draining" if self._draining else self.ready():
            return web.json_response({"status": why}, status=503)
        return web.json_response({"status": "ready"})

    async def _event(self, request: web.Request) -> web.Response:
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await self._answer(request)
            if self._draining:
                response.force_close()
            return response
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _answer(self, request: web.Request) -> web.Response:
        if self.on_event is None:
            return refusal(Unavailable("not ready: " + (self.ready() or "starting")))
        return await self.on_event(request)


def refusal(error: Unavailable, headers: dict[str, str] | None = None) -> web.Response:
    """503: nothing was done, and whoever sends events may send this one again."""
    return web.Response(
        status=503,
        body=error.body(),
        headers={"Retry-After": "1", "Content-Type": "application/json"} | (headers or {}),
    )
