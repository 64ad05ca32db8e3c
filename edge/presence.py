"""Tells the function `presence` which connections are here: what changed, gathered for a moment, and a sign of life.

There is one task for it in a process, and no word for a connection that neither comes nor goes. Whenever the other side
may not know everything (it was away, Redis was emptied, this process was frozen) all connections are reported again,
under a new name: so those that are gone meanwhile go with the old one, and for those that stayed nothing changes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from edge.directory import NotKnownError, parts
from schemas.presence import Connection, ReportPresence
from shared.ids import random_token

log = logging.getLogger(__name__)

BEAT_S = 6.0
"""An edge that is silent for 20 s counts as dead: two signs of life may be lost."""
GATHER_S = 0.2
AGAIN_S = 3.0
AT_ONCE = 500
"""Most connections of one report."""


class Tells(Protocol):
    """Where it is told (`edge.directory.Directory`)."""

    async def report(self, report: ReportPresence) -> bool:
        """Whether this edge is known. Raises: NotKnownError."""

    def farewell(self, report: ReportPresence) -> None:
        """A report whose answer nobody waits for."""


class Arrivals:
    """Who came and went since it was asked last."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[bool, Connection]] = {}
        self.some = asyncio.Event()
        """Set while there are any."""

    def joined(self, connection: Connection) -> None:
        """A connection came."""
        self._changes[connection.connection_id] = True, connection
        self.some.set()

    def left(self, connection: Connection) -> None:
        """It went; if nobody has heard of it, nobody needs to."""
        came, _ = self._changes.pop(connection.connection_id, (False, None))
        if not came:
            self._changes[connection.connection_id] = False, connection
            self.some.set()

    def take(self, most: int) -> tuple[list[Connection], list[Connection]]:
        """The oldest changes, as (joined, left)."""
        taken = [self._changes.pop(name) for name in list(self._changes)[:most]]
        if not self._changes:
            self.some.clear()
        return [one for came, one in taken if came], [one for came, one in taken if not came]

    def clear(self) -> None:
        """Forgets all changes."""
        self._changes.clear()
        self.some.clear()


class Reporter:
    """One edge process, as `presence` knows it."""

    def __init__(
        self, tells: Tells, arrivals: Arrivals, here: Callable[[], Iterable[Connection]]
    ) -> None:
        """`here` gives all connections there are now."""
        self._tells = tells
        self._arrivals = arrivals
        self._here = here
        self._name = ""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stops, and takes what is left here off."""
        self._task.cancel()
        if self._name:
            self._tells.farewell(ReportPresence(self._name, ends=True))

    async def _run(self) -> None:
        known, failed = False, False
        while True:
            try:
                known = await (self._changes() if known else self._everything())
            except NotKnownError as error:
                if not failed:
                    log.warning("presence is not reported, trying again: %s", error)
                known, failed = False, True
                await asyncio.sleep(AGAIN_S)
                continue
            if known:
                failed = False
                await self._something_new()

    async def _something_new(self) -> None:
        try:
            async with asyncio.timeout(BEAT_S):
                await self._arrivals.some.wait()
        except TimeoutError:
            return  # a sign of life
        await asyncio.sleep(GATHER_S)

    async def _changes(self) -> bool:
        joined, left = self._arrivals.take(AT_ONCE)
        return await self._tells.report(ReportPresence(self._name, joined, left))

    async def _everything(self) -> bool:
        old, self._name = self._name, random_token()
        self._arrivals.clear()  # what comes and goes from here on follows
        everybody = parts(self._here(), AT_ONCE) or [[]]
        known = True
        for i, part in enumerate(everybody):
            last = old if old and i == len(everybody) - 1 else None
            report = ReportPresence(self._name, part, begins=i == 0, replaces=last)
            known = known and await self._tells.report(report)
        return known
