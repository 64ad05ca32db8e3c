"""Presence of friends: subscribed once by the user, kept up by the client over renewals and reconnects."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from clients.python.natterjack.errors import ApiError
from clients.python.natterjack.events import Event, PresenceChanged
from clients.python.natterjack.receiver import Request
from schemas.presence import Presence, Presences, SubscribePresence

AT_ONCE = 500
AGAIN_S = 5.0

log = logging.getLogger(__name__)


class PresenceWatch:
    """What is known of those one watches."""

    def __init__(self, request: Request, notice: Callable[[Event], None]) -> None:
        self._request = request
        self._notice = notice
        self._known: dict[int, Presence | None] = {}
        self._renew_s = 0.0
        self._due = asyncio.Event()

    async def add(self, user_ids: Iterable[int]) -> list[Presence]:
        """Watches friends; who is none is left out of the answer. Raises: ApiError."""
        wanted = list(user_ids)
        found: list[Presence] = []
        for start in range(0, len(wanted), AT_ONCE):
            found += await self._ask(wanted[start : start + AT_ONCE])
        for presence in found:
            self._known[presence.user_id] = presence
        return found

    async def remove(self, user_ids: Iterable[int]) -> None:
        """Watches these no more. Raises: ApiError."""
        gone = list(user_ids)
        for user_id in gone:
            self._known.pop(user_id, None)
        for start in range(0, len(gone), AT_ONCE):
            part = gone[start : start + AT_ONCE]
            await self._request(SubscribePresence(part, remove=True), Presences)

    def pushed(self, presence: Presence) -> None:
        """Takes what the server says; pushes from different servers may overtake each other."""
        if presence.user_id not in self._known:
            return
        known = self._known[presence.user_id]
        if known is not None and presence.at < known.at:
            return
        self._known[presence.user_id] = presence
        if known is None or _plain(known) != _plain(presence):
            self._notice(PresenceChanged(presence))

    def renew(self) -> None:
        """The connection is a new one, or pushes were lost."""
        self._due.set()

    async def run(self) -> None:
        """Renews in time."""
        while True:
            try:
                async with asyncio.timeout(self._renew_s or None):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self._renew()
            except ApiError as error:
                log.warning("presence is not known, trying again: %s", error)
                await asyncio.sleep(AGAIN_S)
                self._due.set()

    async def _renew(self) -> None:
        wanted = list(self._known)
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            found = {presence.user_id: presence for presence in await self._ask(part)}
            for user_id in part:
                if user_id in found:
                    self.pushed(found[user_id])
                else:  # a friend no more
                    self._known.pop(user_id, None)

    async def _ask(self, user_ids: Sequence[int]) -> list[Presence]:
        answer = await self._request(SubscribePresence(list(user_ids)), Presences)
        if not self._renew_s:
            self._due.set()  # from now on there is something to renew
        self._renew_s = float(answer.renew_s)
        return answer.users


def _plain(presence: Presence) -> tuple[bool, list[str]]:
    return presence.online, list(presence.devices)
