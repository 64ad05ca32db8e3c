"""`groups`: groups, their members, and who may do what in them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from functions.groups.announce import Announcer
from functions.groups.applications import accept, list_applications, reject
from functions.groups.change import Changes
from functions.groups.departures import Departures
from functions.groups.deps import Deps
from functions.groups.life import create, dissolve, mute_all, transfer, update
from functions.groups.members import invite, join, kick, leave, mute, nickname, role
from functions.groups.outbox import Outbox
from functions.groups.reading import among, get, list_groups, list_members, memberships
from functions.groups.store import SqlGroups
from shared.function import Function, on
from shared.gate import Copies
from shared.resources import Resources
from shared.tasks import end


@asynccontextmanager
async def lifespan(resources: Resources) -> AsyncIterator[Deps]:
    """Opens SQL, the log and Redis, sweeps up after processes that crashed before they had announced a change, and
    takes deleted accounts out of their groups.
    """
    engine = resources.engine()
    copies = Copies(resources.redis())
    outbox = Outbox(engine, await resources.writer(), copies)
    sweeper = asyncio.create_task(outbox.sweep_forever(), name="group outbox")
    changes, announcer = Changes(engine), Announcer(resources.bus, copies, outbox)
    departures = Departures(engine, changes, announcer)
    leaver = asyncio.create_task(departures.sweep_forever(), name="departures")
    for task in (sweeper, leaver):
        resources.watch(task)
    try:
        yield Deps(changes, SqlGroups(engine), announcer)
    finally:
        # SQL is closed next, and under a statement that would never end.
        await end(sweeper, leaver)


function = Function(
    "groups",
    (
        on("group.create", create),
        on("group.get", get),
        on("group.list", list_groups),
        on("group.update", update),
        on("group.dissolve", dissolve),
        on("group.transfer", transfer),
        on("group.mute_all", mute_all),
        on("group.join", join),
        on("group.leave", leave),
        on("group.members", list_members),
        on("group.invite", invite),
        on("group.kick", kick),
        on("group.role", role),
        on("group.mute", mute),
        on("group.nickname", nickname),
        on("group.applications", list_applications),
        on("group.accept", accept),
        on("group.reject", reject),
        on("group.memberships", memberships),
        on("group.among", among),
    ),
    lifespan,
)
