"""The processes of an edge: one that serves, or a supervisor and its workers on one port (SO_REUSEPORT)."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from itertools import count
from types import FrameType
from typing import Any

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edge.app import Edge
from edge.board import Board
from edge.socket import CLOSE_GRACE_S
from shared import memory
from shared.auth import TokenVerifier
from shared.settings import Settings, SettingsError
from shared.telemetry import close_tracing, set_up_logging, set_up_tracing

log = logging.getLogger(__name__)

BACKLOG = 4096
KEEP_ALIVE_S = 75
SEND_BUFFER = 256 * 1024
"""The kernel's share of what waits for a slow client. Left alone it grows to megabytes for each connection."""
RESTART_S = 1.0
WRONG_SETTINGS = 2


def main() -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status: 0 drained, 1 failed, 2 wrong settings."""
    try:
        settings = Settings.load()
        settings.require("nats_url")
        TokenVerifier.from_settings(settings)
        listener = _listen(settings.edge_host, settings.edge_port, shared=settings.edge_workers > 1)
    except SettingsError as error:
        print(f"edge: {error}", file=sys.stderr)  # noqa: T201 the one line to whoever started us
        return WRONG_SETTINGS
    set_up_logging("edge")
    logging.getLogger("aiohttp.server").addFilter(_without_request)
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    board = Board(settings.edge_workers)
    if settings.edge_workers == 1:
        return uvloop.run(_serve(settings, board, 0, listener, parent=None))
    return _Supervisor(settings, board, listener).run()


def _listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A bound socket on a port that nobody has. `shared`: our own workers may bind it as well.

    Raises: SettingsError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # SO_REUSEPORT would let us join another server's port without a word.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()
        return _bind(family, address, shared=shared)
    except OSError as error:
        raise SettingsError(
            f"IM_EDGE_HOST, IM_EDGE_PORT: cannot listen on {host}:{port}: {error.strerror}"
        ) from None


def _bind(family: int, address: Any, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted connections inherit these.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.bind(address)
    return listener


_CLIENTS_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)


def _without_request(record: logging.LogRecord) -> bool:
    """Keeps what aiohttp says of broken requests out of the logs: it quotes them, and so their tokens, and anybody
    could fill the disk with it.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], _CLIENTS_FAULTS))


async def _serve(
    settings: Settings, board: Board, worker: int, listener: socket.socket, parent: int | None
) -> int:
    """One worker until it is told to stop. `parent`: a pipe that ends with the supervisor."""
    set_up_tracing("edge", settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    terms = count(1)

    def on_term() -> None:
        if next(terms) > 1:
            os._exit(1)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, on_term)
    if parent is None:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    else:
        loop.add_reader(parent, stop.set)
    edge = Edge(settings, board, worker)
    edge.on_failure = stop.set
    runner = web.AppRunner(
        edge.app(),
        access_log=None,  # it would hold tokens
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=CLOSE_GRACE_S,  # all is answered by then, and has only to be written
    )
    await runner.setup()
    http = runner.server
    assert http is not None
    server = await loop.create_server(lambda: edge.door(http), sock=listener, backlog=BACKLOG)
    memory.settle()
    await stop.wait()
    if parent is not None:
        loop.remove_reader(parent)
    await edge.drain()
    server.close()
    await runner.cleanup()
    await close_tracing()
    return 1 if edge.failed else 0


class _Supervisor:
    """Starts the workers, starts a dead one again, hands SIGTERM on."""

    def __init__(self, settings: Settings, board: Board, listener: socket.socket) -> None:
        self._settings = settings
        self._board = board
        # Bound and never listening: it keeps the port between a worker's death and its successor.
        self._listener = listener
        self._alive, self._lifeline = os.pipe()
        self._workers: dict[int, int] = {}
        self._pid = os.getpid()
        self._stopping = False
        self._terms = 0

    def run(self) -> int:
        """Returns when all workers have ended."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        for worker in range(self._settings.edge_workers):
            self._start(worker)
        status = 0
        while self._workers:
            pid, ended = os.wait()
            worker = self._workers.pop(pid)
            code = os.waitstatus_to_exitcode(ended)
            if self._stopping:
                status = status or abs(code)
                continue
            log.error("worker %d ended with status %d; starting it again", worker, code)
            time.sleep(RESTART_S)
            if not self._stopping:
                self._start(worker)
        return status

    def _start(self, worker: int) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = worker
            return
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # Ctrl-C reaches the whole process group; the supervisor alone answers it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(self._lifeline)
            status = uvloop.run(self._work(worker))
        except Exception:
            log.exception("worker %d failed", worker)
        finally:
            logging.shutdown()
            os._exit(status)

    async def _work(self, worker: int) -> int:
        listener = _bind(self._listener.family, self._listener.getsockname(), shared=True)
        self._listener.close()
        return await _serve(self._settings, self._board, worker, listener, self._alive)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a worker that has not begun yet
        if not self._stopping:
            self._stopping = True
            # Tells the workers. Not by a signal: who signals our process group has signalled them already.
            os.close(self._lifeline)
        if number == signal.SIGTERM:
            self._terms += 1
        if self._terms > 1:
            for pid in self._workers:
                os.kill(pid, signal.SIGKILL)
