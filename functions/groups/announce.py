"""What follows the COMMIT of a change, in this order: rights forgotten, pushes, the record in the log."""

import logging
from typing import Any

from functions.groups.change import Change
from functions.groups.outbox import Outbox
from schemas.types import Model
from shared.bus import Bus
from shared.errors import Unavailable
from shared.function import Outcome
from shared.gate import Copies

log = logging.getLogger(__name__)


class Announcer:
    """Tells the world of changes."""

    def __init__(self, bus: Bus, copies: Copies, outbox: Outbox) -> None:
        self._bus = bus
        self._copies = copies
        self._outbox = outbox

    async def announce(self, change: Change, answer: Model) -> Outcome[Any]:
        """The asker's answer: from the timeline if the change is a message of the conversation, otherwise `answer`.

        Whoever repeats a command that has done its work already gets his answer when the work of the first one is in
        the log: what its crash left behind goes there now.

        Raises: UnknownOutcome if it is not known to be in the log. The sweep brings it there.
        """
        if change.written and change.keys:
            await self._copies.forget(*change.keys)
        if change.written:
            self._push(change)
        await self._outbox.flush(change.id)
        return Outcome(None if change.announced else answer)

    async def repeat(self, group_id: int, answer: Model) -> Outcome[Any]:
        """The same for a command that found its work done. Raises: UnknownOutcome."""
        await self._outbox.flush(group_id)
        return Outcome(answer)

    def _push(self, change: Change) -> None:
        try:
            for push in change.pushes:
                self._bus.send(push.subject, push.frame)
        except Unavailable:
            # Edges learn of it by the version that the next event of the group names, clients when they catch up.
            log.warning("pushes of group %d lost: the bus is not reached", change.id)
