"""Runs functions: `python -m functions [NAME …]`, all of them without a name; on NATS, over HTTP or both (`IM_HOST`).

SIGTERM drains: no new commands, those that have arrived are answered, the timeline stores what it has applied. A
function that crashes ends the process with status 1, so that whoever supervises it starts it again.
"""

import argparse
import importlib
import logging
import pkgutil
import sys
from contextlib import AsyncExitStack

import uvloop

import functions
from shared.adapters.nats import NatsBus
from shared.function import Function
from shared.hosts.faces import Faces
from shared.hosts.process import serve
from shared.hosts.web import Web
from shared.resources import Resources
from shared.settings import Settings, SettingsError
from shared.telemetry import set_up_logging

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


async def run(names: list[str], settings: Settings) -> int:
    """Serves until a signal or until a function crashes. Returns the exit status."""

    async def start(stack: AsyncExitStack, web: Web | None) -> Faces:
        bus = await NatsBus.open(settings.require("nats_url"), f"functions {' '.join(names)}")
        stack.push_async_callback(bus.close)
        resources = await stack.enter_async_context(Resources(settings, bus))
        nats = settings.faces != "http"
        writer = await resources.writer() if nats else resources.late_writer()
        faces = Faces(resources, writer, web, nats=nats)
        stack.callback(faces.close)
        for name in names:
            function = load(name)
            deps = await stack.enter_async_context(function.lifespan(resources))
            await faces.serve(function, deps)
        faces.open()
        log.info("serving %s on %s", ", ".join(names), settings.faces)
        return faces

    return await serve(service_name(names), settings, start)


def main() -> int:
    """Parses the command line; wrong names and settings are one line and status 2."""
    known = registry()
    parser = argparse.ArgumentParser(
        prog="functions", description="Runs functions, on NATS or over HTTP (IM_HOST)."
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
