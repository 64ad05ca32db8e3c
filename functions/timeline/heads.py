"""Heads: some time after a conversation's last change its members hear how far it is, so that none misses its end."""

import asyncio
from collections.abc import Callable, Mapping

from functions.timeline.pending import Pending
from shared.errors import Unavailable
from shared.ids import Private

QUIET_S = 1.0
SWEEP_S = 1.0

SendHead = Callable[[str, Private | None, int, int, int], None]
"""(conversation_id, members (None: a group), seq, rev, members_version). Raises Unavailable if the bus is away."""


class Heads:
    """Conversations that changed a moment ago. Each is sent QUIET_S to QUIET_S + SWEEP_S after it was stored last."""

    def __init__(self, send: SendHead) -> None:
        self._send = send
        self._due: dict[str, tuple[float, Private | None, int, int, int]] = {}

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

    async def run(self) -> None:
        """Sweeps for ever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """Sends what is due; keeps what the bus does not take."""
        due: Mapping[str, tuple[float, Private | None, int, int, int]] = {
            c: d for c, d in self._due.items() if d[0] <= now
        }
        for conversation_id, (_, members, seq, rev, version) in due.items():
            try:
                self._send(conversation_id, members, seq, rev, version)
            except Unavailable:
                return
            del self._due[conversation_id]
