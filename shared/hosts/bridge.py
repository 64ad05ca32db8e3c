"""`python -m shared.hosts.bridge NAME`: calls a function that lives behind HTTP for those who ask on NATS.

Knative scales by HTTP requests, and a process that is not there cannot hold a subscription. So a bridge holds it: it
takes the commands of one function from the function's queue group, with all the checks of the NATS host, POSTs each as
a CloudEvent to `K_SINK`, and answers on NATS with the event in the response. Facts that the function follows
(`IM_FACTS`) are POSTed as well and acknowledged after a 2xx.

It knows the table of commands and none of the functions' code, so its image is that of the edge.
"""

import argparse
import asyncio
import logging
import sys
from contextlib import AsyncExitStack, nullcontext
from typing import Any, Self

import uvloop

from schemas.commands import COMMANDS
from shared import subjects
from shared.adapters.nats import NatsBus
from shared.bus import Bus
from shared.cloudevents import JSON, Event
from shared.errors import AppError, Relayed, UnknownOutcome
from shared.function import Context, Function, Handler, on
from shared.hosts.cloudevents import ACK, ERROR
from shared.hosts.facts import Arrived, FactReader
from shared.hosts.nats import Host
from shared.hosts.process import serve
from shared.hosts.sink import Sink, failure
from shared.hosts.web import Web
from shared.ids import now_ms, random_token
from shared.settings import Settings, SettingsError
from shared.telemetry import set_up_logging

log = logging.getLogger("shared.hosts.bridge")

SOURCE = "/natterjack/bridge/"
FACT_S = 50.0
"""How long a function may take for a fact, its start included. Less than after which it is given to somebody else."""


class Bridge:
    """Turns commands and facts into POSTs, and their responses into answers."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._source = SOURCE + name
        self._sink = sink

    async def command(self, handler: Handler, payload: bytes, ctx: Context[Any]) -> bytes:
        """Runs one command behind the sink (`shared.hosts.endpoint.Call`). Raises: AppError."""
        command = handler.command
        now = now_ms()
        deadline = ctx.deadline or now + command.deadline_ms
        if deadline <= now:
            raise UnknownOutcome("the dead line has passed")
        event = Event(
            id=random_token(),
            source=self._source,
            type=subjects.COMMAND_PREFIX + command.type,
            subject=str(ctx.user_id),
            content_type=JSON,
            data=payload,
            extensions={
                "imdeadline": str(deadline),
                "imconn": ctx.conn,
                "imsession": ctx.session,
                "traceparent": ctx.traceparent,
            },
        )
        response = await self._sink.post(event, (deadline - now) / 1000)
        answer = response.event
        if answer is not None and answer.type == ACK + command.type:
            return answer.data
        if answer is not None and answer.type == ERROR + command.type:
            raise Relayed(answer.extensions.get("imstatus", ""), answer.data)
        raise failure(response)

    async def fact(self, fact: Arrived) -> bool:
        """Brings one fact; whether it is dealt with."""
        event = Event(
            id=fact.id or random_token(),
            source=self._source,
            type=subjects.EVENT_PREFIX + fact.name,
            content_type=JSON,
            data=fact.payload,
            extensions={"traceparent": fact.traceparent},
        )
        try:
            response = await self._sink.post(event, FACT_S)
        except AppError:
            return False
        if not 200 <= response.status < 300:
            log.warning("the sink answered a fact with %d", response.status)
            return False
        return True


def remote(name: str) -> Function[None]:
    """The function of that name as the table of commands knows it, without its code."""

    async def nowhere(_command: object, _ctx: object) -> Any:
        raise AssertionError("it runs behind the sink")

    handlers = tuple(on(command.type, nowhere) for command in COMMANDS if command.function == name)
    return Function(name, handlers, lambda _: nullcontext())


class Bridging:
    """A bridge at work (`shared.hosts.process.Serving`)."""

    def __init__(self, host: Host, facts: FactReader | None) -> None:
        self._host = host
        self.facts = facts

    @classmethod
    async def start(
        cls, name: str, bus: Bus, sink: Sink, facts: tuple[str, ...], max_in_flight: int
    ) -> Self:
        """Subscribes; what is to be served is live when this returns."""
        bridge = Bridge(name, sink)
        host = Host(bus, call=bridge.command, max_in_flight=max_in_flight)
        await host.serve(remote(name), None)
        reader = None
        if facts:
            reader = FactReader(bus, name, facts, bridge.fact, max_in_flight)
            reader.start()
        return cls(host, reader)

    async def failed(self) -> BaseException:
        """See `Serving.failed`: whatever fails, a bridge goes on."""
        never: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        return await never

    async def drain(self, timeout_s: float) -> None:
        """See `Serving.drain`."""
        drains = [self._host.drain(timeout_s)]
        if self.facts is not None:
            drains.append(self.facts.drain(timeout_s))
        await asyncio.gather(*drains)


async def run(name: str, settings: Settings) -> int:
    """Bridges until a signal. Returns the exit status. Raises: SettingsError."""
    url = settings.require("sink")

    async def start(stack: AsyncExitStack, web: Web | None) -> Bridging:
        sink = await stack.enter_async_context(Sink(url, settings.ce_overrides))
        bus = await NatsBus.open(settings.require("nats_url"), f"bridge {name}")
        stack.push_async_callback(bus.close)
        bridging = await Bridging.start(name, bus, sink, settings.facts, settings.bridge_in_flight)
        if web is not None:
            web.ready = lambda: "" if bus.connected else "NATS is not reached"
        log.info("bridging %s", name)
        return bridging

    return await serve(f"bridge-{name}", settings, start)


def main() -> int:
    """Parses the command line; wrong names and settings are one line and status 2."""
    parser = argparse.ArgumentParser(
        prog="bridge", description="Calls a function behind HTTP for those who ask on NATS."
    )
    parser.add_argument("name", metavar="NAME", help="name of the function: its queue group")
    name = parser.parse_args().name
    if not subjects.is_token(name):
        parser.error(f"{name} is no name of a function")
    set_up_logging(f"bridge-{name}")
    try:
        settings = Settings.load()
        if not settings.facts and not remote(name).handlers:
            raise SettingsError(f"IM_FACTS is not set, and no command belongs to {name}")
        return uvloop.run(run(name, settings))
    except SettingsError as error:
        print(f"bridge: {error}", file=sys.stderr)  # noqa: T201 the one line to whoever started us
        return 2


if __name__ == "__main__":
    sys.exit(main())
