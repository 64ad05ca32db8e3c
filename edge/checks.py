"""Asks of every new connection's session whether it has ended: its token is valid for a while, and a socket outlives
its token. All that came within a moment are one question.
"""

import asyncio
import logging
from typing import Protocol

from edge.directory import NotKnownError, parts
from schemas.internal import MOST_ASKED, SessionOf

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""How long sessions gather: nobody waits for this."""
AGAIN_S = 15.0
"""Pause until they are asked about again if nobody could tell."""


class Tells(Protocol):
    """Knows which sessions have ended (`edge.directory.Directory`)."""

    async def ended(self, sessions: list[SessionOf]) -> list[SessionOf]:
        """Which of these. Raises: NotKnownError."""


class Kicks(Protocol):
    """Closes connections (`edge.hub.Hub`)."""

    def kick(self, user_id: int, session_id: str, reason: str) -> None:
        """Tells a session's connections that it has ended, and closes them."""


class SessionChecks:
    """Connections are added when their user's subscription stands: whatever ends later reaches them as `kicked`."""

    def __init__(self, tells: Tells, kicks: Kicks) -> None:
        self._tells = tells
        self._kicks = kicks
        self._waiting: dict[tuple[int, str], SessionOf] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, user_id: int, session_id: str) -> None:
        """Has a session checked soon."""
        self._waiting[user_id, session_id] = SessionOf(user_id, session_id)
        self._gather(GATHER_S)

    def close(self) -> None:
        """Stops."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _gather(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(delay_s, self._start)
        elif loop.time() + delay_s < self._timer.when():
            self._timer.cancel()
            self._timer = loop.call_later(delay_s, self._start)

    def _start(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, {}
        for part in parts(waiting.values(), MOST_ASKED):
            task = asyncio.get_running_loop().create_task(self._check(part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check(self, sessions: list[SessionOf]) -> None:
        try:
            ended = await self._tells.ended(sessions)
        except NotKnownError as error:
            log.warning("%d sessions not checked, trying again later: %s", len(sessions), error)
            self._waiting.update({(one.user_id, one.session_id): one for one in sessions})
            self._gather(AGAIN_S)
            return
        for one in ended:
            self._kicks.kick(one.user_id, one.session_id, "ended")
