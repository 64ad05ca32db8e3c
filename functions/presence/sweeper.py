"""Takes off the connections of edges that died without a word, and tells who watches."""

import asyncio
import logging

from functions.presence.watchers import Watchers
from shared.bus import Bus
from shared.errors import AppError
from shared.presence import PresenceStore

log = logging.getLogger(__name__)

EVERY_S = 4.0
"""With DEAD_AFTER_MS and the edges' beat this notices a dead edge within 30 s."""


async def sweep_for_ever(store: PresenceStore, watchers: Watchers, bus: Bus) -> None:
    """Every process of this function does it: whichever comes first."""
    while True:
        try:
            more, changed = await store.sweep()
            for push in await watchers.tell(changed):
                bus.send(push.subject, push.frame)
        except AppError as error:
            # Who missed a push learns of it with his next renewal.
            log.warning("edges that are gone are not swept now: %s", error)
            more = False
        if not more:
            await asyncio.sleep(EVERY_S)
