"""The life of a process that serves until it is told to stop: signals, drain, exit status."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from shared import memory
from shared.hosts.web import Web
from shared.settings import Settings
from shared.telemetry import close_tracing, set_up_tracing

log = logging.getLogger(__name__)

DRAIN_S = 30.0
"""How long commands that have arrived may take when the process is to end."""


class Serving(Protocol):
    """What a process does."""

    async def failed(self) -> BaseException:
        """Waits until it cannot go on, for ever if that cannot be, and returns why."""

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing new and returns when all that had arrived is answered, or after `timeout_s`."""


Start = Callable[[AsyncExitStack, Web | None], Awaitable[Serving]]
"""Connects and serves; waits for servers that are away. What it opened, the stack closes."""


async def serve(service: str, settings: Settings, start: Start) -> int:
    """Serves until a signal or until it fails. Returns the exit status: 0 told to stop, 1 failed.

    service: its name in traces. Where the settings want HTTP, the port is open before anything else is reached.
    """
    stop = asyncio.Event()
    starting = asyncio.current_task()

    def on_signal() -> None:
        stop.set()
        if starting is not None:
            # It may be waiting for a server that is away, which can take for ever.
            starting.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with AsyncExitStack() as stack:
        set_up_tracing(service, settings)
        stack.push_async_callback(close_tracing)
        try:
            web = None
            if settings.http:
                web = await stack.enter_async_context(Web(settings.port))
            serving = await start(stack, web)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return 0
        starting = None
        memory.settle()
        stopped = asyncio.create_task(stop.wait())
        failed = asyncio.create_task(serving.failed())
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        drains = [serving.drain(DRAIN_S)]
        if web is not None:
            drains.append(web.drain(DRAIN_S))
        await asyncio.gather(*drains)
        if failed.done():
            log.critical("stopping: %s", failed.result())
        stopped.cancel()
        failed.cancel()
        return 0 if stop.is_set() else 1
