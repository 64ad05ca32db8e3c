"""The faces of one function process, by `IM_HOST`: a NATS queue group, CloudEvents over HTTP, or both."""

import asyncio
from typing import Any

from shared.bus import Bus
from shared.errors import AppError
from shared.function import Context, Function
from shared.hosts.cloudevents import CloudEventsHost
from shared.hosts.facts import Arrived, FactReader
from shared.hosts.nats import Host
from shared.hosts.web import Web
from shared.ids import now_ms
from shared.invoke import invoke
from shared.log import LogWriter
from shared.resources import Resources
from shared.subjects import NOBODY


class Faces:
    """Serves functions on all faces that are wanted (`shared.hosts.process.Serving`)."""

    def __init__(
        self, resources: Resources, writer: LogWriter, web: Web | None, *, nats: bool
    ) -> None:
        """`web`: the HTTP face, if wanted. `nats`: whether to serve there too."""
        self._resources = resources
        self._bus: Bus = resources.bus
        self._writer = writer
        self._nats = Host(self._bus, writer=writer) if nats else None
        self._http: CloudEventsHost | None = None
        self._web = web
        self.facts: list[FactReader] = []

    async def serve(self, function: Function[Any], deps: object) -> None:
        """Adds a function. On NATS it is live when this returns, over HTTP after `open`."""
        if self._web is not None and (function.handlers or function.facts):
            if self._http is None:
                self._http = CloudEventsHost(self._bus, writer=self._writer)
                await self._bus.flush()  # its inbox is live before the first command
            self._http.serve(function, deps)
        if self._nats is not None:
            await self._nats.serve(function, deps)
            if function.facts:
                self._follow(function, deps)

    def open(self) -> None:
        """All functions are served: HTTP is ready as long as NATS is reached."""
        if self._web is not None:
            self._web.on_event = self._http.answer if self._http is not None else None
            self._web.ready = lambda: "" if self._bus.connected else "NATS is not reached"

    async def failed(self) -> BaseException:
        """See `Serving.failed`."""
        return await self._resources.failed()

    async def drain(self, timeout_s: float) -> None:
        """See `Serving.drain`. The HTTP server drains by itself."""
        drains = [reader.drain(timeout_s) for reader in self.facts]
        if self._nats is not None:
            drains.append(self._nats.drain(timeout_s))
        await asyncio.gather(*drains)

    def close(self) -> None:
        """Waits for no more answers of the log's reader."""
        if self._http is not None:
            self._http.close()

    def _follow(self, function: Function[Any], deps: object) -> None:
        """Reads the function's facts in this process."""
        handlers = {fact.name: fact for fact in function.facts}

        async def deliver(fact: Arrived) -> bool:
            ctx = Context(NOBODY, deps, now_ms(), traceparent=fact.traceparent)
            try:
                await invoke(handlers[fact.name], fact.payload, ctx, self._bus, self._writer)
            except AppError:
                return False
            return True

        reader = FactReader(self._bus, function.name, list(handlers), deliver)
        reader.start()
        self.facts.append(reader)
