"""Heads: some time after a conversation's last change its members hear how far it is, so that none misses its end."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from functions.timeline.pending import Pending
from functions.timeline.state import Progress
from shared.errors import Unavailable

QUIET_S = 1.0
SWEEP_S = 1.0


class Newest(NamedTuple):
    """How far a conversation is."""

    conversation_id: str
    seq: int
    rev: int
    members_version: int


SendHead = Callable[[Newest], None]
"""Raises Unavailable if the bus is away."""
Lately = Callable[[Mapping[int, Progress]], Awaitable[Iterable[Newest]]]
"""See `Store.lately`."""


class Heads:
    """Conversations that changed a moment ago. Each is sent QUIET_S to QUIET_S + SWEEP_S after it was stored last."""

    def __init__(self, send: SendHead, lately: Lately) -> None:
        self._send = send
        self._lately = lately
        self._due: dict[str, tuple[float, Newest]] = {}
        self._claimed: dict[int, Progress] = {}

    def stored(self, pending: Pending) -> None:
        """Notes the conversations of a COMMIT."""
        due = asyncio.get_running_loop().time() + QUIET_S
        for conversation_id, head in pending.heads.items():
            newest = Newest(conversation_id, head.max_seq, head.max_rev, head.members_version)
            self._due[conversation_id] = due, newest

    def claimed(self, progress: Mapping[int, Progress]) -> None:
        """Notes partitions whose owner may have died before he sent the heads of what he had stored."""
        self._claimed.update(progress)

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            if self._claimed:
                progress, self._claimed = self._claimed, {}
                for newest in await self._lately(progress):
                    # What was stored since then is there already, and newer.
                    self._due.setdefault(newest.conversation_id, (0.0, newest))
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float = math.inf) -> None:
        """Sends what is due, by default all; keeps what the bus does not take."""
        for newest in [newest for due, newest in self._due.values() if due <= now]:
            try:
                self._send(newest)
            except Unavailable:
                return
            del self._due[newest.conversation_id]
