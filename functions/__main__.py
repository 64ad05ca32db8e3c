"""Runs functions on the NATS host: `python -m functions [NAME …]`, all of them without a name.

SIGTERM drains: no new commands, those that have arrived are answered, the timeline stores what it has applied. A
function that crashes ends the process with status 1, so that whoever supervises it starts it again.
"""

import argparse
import asyncio
import importlib
import logging
import pkgutil
import signal
import sys
from contextlib import AsyncExitStack

import uvloop

import functions
from shared import memory
from shared.adapters.nats import NatsBus
from shared.function import Function
from shared.hosts.nats import Host
from shared.resources import Resources
from shared.settings import Settings, SettingsError
from shared.telemetry import close_tracing, set_up_logging, set_up_tracing

log = logging.getLogger("functions")


def registry() -> list[str]:
    """Names of all functions: the folders beside this file."""
    return sorted(
        module.name for module in pkgutil.iter_modules(functions.__path__) if module.ispkg
    )


def load(name: str) -> Function[object]:
    """Imports one function's folder, and nothing of the others."""
    function = importlib.import_module(f"functions.{name}").function
    assert isinstance(function, Function)
    return function


def service_name(names: list[str]) -> str:
    """What this process is called in logs and traces."""
    return names[0] if len(names) == 1 else "functions"


async def start(
    names: list[str], settings: Settings, stack: AsyncExitStack
) -> tuple[Resources, Host]:
    """Connects and subscribes; waits for servers that are away. `stack` closes it all again."""
    bus = await NatsBus.open(settings.require("nats_url"), f"functions {' '.join(names)}")
    stack.push_async_callback(bus.close)
    resources = await stack.enter_async_context(Resources(settings, bus))
    host = Host(bus, writer=await resources.writer())
    for name in names:
        function = load(name)
        deps = await stack.enter_async_context(function.lifespan(resources))
        await host.serve(function, deps)
    return resources, host


async def run(names: list[str], settings: Settings) -> int:
    """Serves until a signal or until a function crashes. Returns the exit status."""
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
        set_up_tracing(service_name(names), settings)
        stack.push_async_callback(close_tracing)
        try:
            resources, host = await start(names, settings, stack)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return 0
        starting = None
        memory.settle()
        log.info("serving %s", ", ".join(names))
        stopped = asyncio.create_task(stop.wait())
        crashed = asyncio.create_task(resources.failed())
        await asyncio.wait({stopped, crashed}, return_when=asyncio.FIRST_COMPLETED)
        await host.drain()
        if crashed.done():
            log.critical("stopping: %s", crashed.result())
        stopped.cancel()
        crashed.cancel()
        return 0 if stop.is_set() else 1


def main() -> int:
    """Parses the command line; wrong names and settings are one line and status 2."""
    known = registry()
    parser = argparse.ArgumentParser(
        prog="functions", description="Runs functions on the NATS host."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of: {', '.join(known)} (default: all)",
    )
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"no function named {', '.join(unknown)}; there are {', '.join(known)}")
    set_up_logging(service_name(names))
    try:
        return uvloop.run(run(names, Settings.load()))
    except SettingsError as error:
        print(f"functions: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
