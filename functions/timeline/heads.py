"""Heads: some time after a conversation's last change its members hear how far it is, so that none misses its end."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from functions.timeline.pending import Pending
from functions.timeline.state import Progress
from shared.errors import Unavailable
from shared.ids import Private, members_of_private

QUIET_S = 1.0
SWEEP_S = 1.0


class Newest(NamedTuple):
    """How far a conversation is."""

    conversation_id: str
    seq: int
    rev: int
    members_version: int


SendHead = Callable[[str, Private | None, int, int, int], None]
"""(conversation_id, members (None: a group), seq, rev, members_version). Raises Unavailable if the bus is away."""
Lately = Callable[[Mapping[int, Progress]], Awaitable[Iterable[Newest]]]
"""See `Store.lately`."""


class Heads:
    """Conversations that changed a moment ago. Each is sent QUIET_S to QUIET_S + SWEEP_S after it was stored last."""

    def __init__(self, send: SendHead, lately: Lately) -> None:
        self._send = send
        self._lately = lately
        self._due: dict[str, tuple[float, Private | None, int, int, int]] = {}
        self._claimed: dict[int, Progress] = {}

    def stored(self, pending: Pending) -> None:
        """Notes the conversations of a COMMIT."""
        due = asyncio.get_running_loop().time() + QUIET_S
        for conversation_id, head in pending.heads.items():
            members = pending.members[conversation_id]
            self._due[conversation_id] = (
                due,
                members,
                head.max_seq,
                head.max_rev,
                head.members_version,
            )

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
                    members = members_of_private(newest.conversation_id)
                    # What was stored since then is there already, and newer.
                    self._due.setdefault(newest.conversation_id, (0.0, members, *newest[1:]))
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float = math.inf) -> None:
        """Sends what is due, by default all; keeps what the bus does not take."""
        due: Mapping[str, tuple[float, Private | None, int, int, int]] = {
            c: d for c, d in self._due.items() if d[0] <= now
        }
        for conversation_id, (_, members, seq, rev, version) in due.items():
            try:
                self._send(conversation_id, members, seq, rev, version)
            except Unavailable:
                return
            del self._due[conversation_id]
