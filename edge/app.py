"""The composition root of one worker: bus, hub, road and roster behind one aiohttp application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from edge import frames
from edge.board import Board
from edge.directory import Directory
from edge.door import Door, Headers
from edge.http import MAX_BODY, Handler, add_command_routes, bearer
from edge.metrics import prometheus_text
from edge.middleware import common_headers, cors, errors_as_json
from edge.presence import Reporter
from edge.road import Road
from edge.roster import Roster
from edge.socket import CLOSE_GRACE_S, Common, Socket
from edge.upgrade import open_socket, upgrade
from schemas.commands import COMMANDS
from schemas.events import Draining
from shared.adapters.nats import NatsBus
from shared.auth import TokenVerifier
from shared.bus import Inbox
from shared.errors import Unavailable
from shared.function import frame
from shared.settings import Settings

log = logging.getLogger(__name__)

POST_S = 1.0
"""How often a worker writes its numbers on the board."""
DRAIN_S = max(command.deadline_ms for command in COMMANDS) / 1000 + 1
"""How long commands on their way may take when the process is to end: until the slowest has passed its dead line."""

_DOCUMENTS = Path(__file__).parent.parent / "schemas" / "generated"
_DRAINING = frames.text_frame(frame(Draining(), Draining.type))


class Edge:
    """One worker. Serves health checks from its start on, everything else once NATS is reached."""

    def __init__(self, settings: Settings, board: Board, worker: int) -> None:
        self.settings = settings
        self.verifier = TokenVerifier.from_settings(settings)
        self.draining = False
        self.failed = False
        """NATS can never be reached (wrong credentials, say)."""
        self.on_failure: Callable[[], None] = lambda: None
        self._board = board
        self._worker = worker
        self._stats = board.inherit(worker)
        self._bus: NatsBus | None = None
        self._inbox: Inbox | None = None
        self._presence: Reporter | None = None
        self._common: Common | None = None

    def app(self) -> web.Application:
        """The application with all its routes."""
        app = web.Application(
            middlewares=[cors(self.settings.cors_origins), errors_as_json],
            client_max_size=MAX_BODY,
        )
        app.on_response_prepare.append(common_headers)
        app.cleanup_ctx.append(self._run)
        app.router.add_get("/ws", self._ws)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        for path, name, kind in (
            ("/openapi.json", "openapi.json", "application/json"),
            ("/asyncapi.json", "asyncapi.json", "application/json"),
            ("/docs", "docs.html", "text/html"),
        ):
            app.router.add_get(path, _document(_DOCUMENTS / name, kind))
        add_command_routes(app, lambda: self.common.road, self.verifier)
        return app

    @property
    def common(self) -> Common:
        """What WebSocket and HTTP share.

        Raises: Unavailable before NATS was reached for the first time.
        """
        if self._common is None:
            raise Unavailable("the message bus is not reached yet")
        return self._common

    def door(self, http: Callable[[], asyncio.Protocol]) -> Door:
        """The protocol of a new connection. `http` is aiohttp's, which serves `app`."""
        return Door(self._open_socket, http)

    async def drain(self) -> None:
        """Says good-bye to all clients: nothing new is begun, what is under way is answered, then sockets close."""
        self.draining = True
        self._post()
        if self._common is None:
            return
        self._common.road.draining = True
        for socket in self._common.roster:
            socket.push(_DRAINING)
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._common.road.drained()
        except TimeoutError:
            log.warning("commands were still without an answer after %.0f s", DRAIN_S)
        for socket in self._common.roster:
            socket.close(frames.SERVICE_RESTART, "the server is going away; connect again")
        await self._common.roster.emptied(CLOSE_GRACE_S)

    async def _run(self, _app: web.Application) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        connecting = loop.create_task(self._connect())
        posting = loop.create_task(self._keep_posting())
        yield
        for task in (connecting, posting):
            task.cancel()
        if self._bus is not None and self._inbox is not None and self._common is not None:
            if self._presence is not None:
                self._presence.close()
            self._common.close()
            self._inbox.close()
            await self._bus.close()

    async def _connect(self) -> None:
        try:
            bus = await NatsBus.open(self.settings.require("nats_url"), "edge")
        except Exception as error:  # noqa: BLE001 whatever it is, this worker is of no use
            log.error("cannot reach NATS (IM_NATS_URL): %s", str(error) or type(error).__name__)  # noqa: TRY400
            self.failed = True
            self.on_failure()
            return
        inbox = Inbox(bus)
        bus.on_reconnect(self._reconnected)
        await bus.flush()
        road = Road(inbox, self._stats)
        self._bus, self._inbox = bus, inbox
        self._common = Common(bus, road, Roster(), self._stats, self.verifier)
        self._presence = Reporter(Directory(road), self._common.arrivals, self._common.here)
        self._post()

    def _reconnected(self) -> None:
        self._stats.bus_reconnects += 1
        if self._common is not None:
            self._common.hub.reconnected()

    async def _keep_posting(self) -> None:
        while True:
            self._post()
            await asyncio.sleep(POST_S)

    def _post(self) -> None:
        connected = self._bus is not None and self._bus.connected
        self._stats.ready = connected and self._common is not None and not self.draining
        self._stats.in_flight = len(self._inbox) if self._inbox is not None else 0
        self._board.post(self._worker, self._stats)

    def _open_socket(self, transport: asyncio.Transport, headers: Headers, token: str) -> Socket:
        self._welcome()
        return open_socket(transport, headers, self.common, token or bearer(headers))

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        self._welcome()
        return upgrade(request, self.common, request.query.get("token") or bearer(request.headers))

    def _welcome(self) -> None:
        if self.draining:
            raise Unavailable("this server is going away; connect again")

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        self._post()
        if self.draining:
            raise Unavailable("draining")
        if not self._stats.ready:
            raise Unavailable("the message bus is not reached")
        if not self._board.all_ready():
            raise Unavailable("another worker of this server is not ready")
        return web.json_response({"status": "ready"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        self._post()
        return web.Response(
            body=prometheus_text(self._board.total()),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


def _document(path: Path, kind: str) -> Handler:
    body = path.read_bytes() if path.is_file() else None

    async def handle(_request: web.Request) -> web.Response:
        if body is None:
            raise web.HTTPNotFound
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return handle
