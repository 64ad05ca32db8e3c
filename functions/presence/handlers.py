"""`presence.subscribe`, and `presence.report` of the edges."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from functions.presence.watchers import Watchers
from schemas.presence import (
    Presence,
    PresenceReported,
    Presences,
    ReportPresence,
    SubscribePresence,
)
from schemas.types import Platform
from shared.errors import NotFound
from shared.function import Context, Outcome
from shared.gate import Gate
from shared.presence import Joined, PresenceStore, Report

RENEW_S = 300
LIFE_S = 2 * RENEW_S
"""How long a subscription lasts: whoever renews it in time misses nothing, not even after a renewal that failed."""


class Platforms(Protocol):
    """Kinds of devices."""

    async def of(self, session_ids: Sequence[str]) -> list[Platform]:
        """Of each session; `other` where it is not known. Raises: Unavailable."""


class Deps(msgspec.Struct, frozen=True):
    """What `presence` needs."""

    gate: Gate
    store: PresenceStore
    platforms: Platforms
    watchers: Watchers


async def subscribe(cmd: SubscribePresence, ctx: Context[Deps]) -> Outcome[Presences]:
    """Friends as they are now. A block looks as if the friend were off-line, whichever of the two has blocked."""
    deps = ctx.deps
    wanted = list(dict.fromkeys(cmd.user_ids))
    if cmd.remove:
        await deps.store.watch(ctx.user_id, wanted, 0)
        return Outcome(Presences([], RENEW_S))
    kinds = await asyncio.gather(*(_friendship(ctx, peer) for peer in wanted))
    friends = [peer for peer, kind in zip(wanted, kinds, strict=True) if kind is not None]
    # Those whose friendship rests, too: when the block is taken back, they hear of each other again.
    await deps.store.watch(ctx.user_id, friends, LIFE_S)
    open_ = [peer for peer, kind in zip(wanted, kinds, strict=True) if kind]
    found = {presence.user_id: presence for presence in await deps.store.read(open_)}
    unknown = (found.get(peer) or Presence(peer, online=False, at=ctx.at) for peer in friends)
    return Outcome(Presences(list(unknown), RENEW_S))


async def report(cmd: ReportPresence, ctx: Context[Deps]) -> Outcome[PresenceReported]:
    """What has changed on an edge; whoever has subscribed to the users concerned hears of it."""
    deps = ctx.deps
    platforms = await deps.platforms.of([one.session_id for one in cmd.joined])
    changed = await deps.store.report(
        Report(
            cmd.edge,
            [Joined(*one) for one in zip(cmd.joined, platforms, strict=True)],
            cmd.left,
            cmd.begins,
            cmd.replaces or "",
            cmd.ends,
        )
    )
    if changed is None:
        return Outcome(PresenceReported(known=False))
    return Outcome(PresenceReported(known=True), pushes=await deps.watchers.tell(changed))


async def _friendship(ctx: Context[Deps], peer: int) -> bool | None:
    """Whether one may see what only friends see; None: no friend."""
    if peer == ctx.user_id:
        return None
    try:
        relation = await ctx.deps.gate.relation(ctx.user_id, peer)
    except NotFound:
        return None
    return relation.open_friends if relation.friends else None
