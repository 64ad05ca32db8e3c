"""Those who have subscribed to somebody hear of him, if they still may."""

import asyncio
from collections.abc import Sequence

import msgspec

from schemas.events import PresencePushed
from shared.errors import NotFound, Unauthenticated
from shared.function import Push, to_user
from shared.gate import Gate
from shared.presence import PresenceStore


class Watchers:
    """Makes the pushes."""

    def __init__(self, store: PresenceStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    async def tell(self, user_ids: Sequence[int]) -> tuple[Push, ...]:
        """The pushes to all who watch these users, as they are now. Raises: Unavailable."""
        if not user_ids:
            return ()
        watchers = dict(zip(user_ids, await self._store.watchers(user_ids), strict=True))
        watched = [user_id for user_id in user_ids if watchers[user_id]]
        pairs = [(user_id, watcher) for user_id in watched for watcher in watchers[user_id]]
        # Asked at each push: a friendship may have ended, or a block begun, since he subscribed.
        may = await asyncio.gather(*(self._may_see(watcher, user) for user, watcher in pairs))
        now = {
            one.user_id: PresencePushed(**msgspec.structs.asdict(one))
            for one in await self._store.read(watched)
        }
        return tuple(
            to_user(watcher, now[user_id])
            for (user_id, watcher), allowed in zip(pairs, may, strict=True)
            if allowed
        )

    async def _may_see(self, watcher: int, user_id: int) -> bool:
        try:
            return (await self._gate.relation(watcher, user_id)).open_friends
        except (NotFound, Unauthenticated):  # an account was deleted
            return False
