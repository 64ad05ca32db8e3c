"""Applications: who asks to be let in, and what owner and admins say."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, update

from functions.groups.change import Change
from functions.groups.deps import Deps
from functions.groups.paging import position
from schemas.events import GroupApplied
from schemas.groups import (
    AcceptGroupApplication,
    GroupApplication,
    GroupApplications,
    ListGroupApplications,
    RejectGroupApplication,
)
from schemas.rights import Role, allowed
from shared import tables
from shared.errors import Forbidden, NotFound, NotMember
from shared.function import Context, Outcome, to_user

_ROW = tables.group_application.c
_SEAT = tables.group_member.c
_APPLICATION = select(_ROW.group_id, _ROW.user_id, _ROW.created_ms, _ROW.status, _ROW.greeting)


async def apply(change: Change, greeting: str) -> None:
    """Keeps the acting user's application. A repeat with the same greeting changes nothing."""
    user_id = change.ctx.user_id
    before = await _read(change, user_id)
    values: dict[str, Any] = {
        "greeting": greeting,
        "status": "pending",
        "created_ms": change.ctx.at,
    }
    if before is None:
        await change.connection.execute(
            insert(tables.group_application).values(group_id=change.id, user_id=user_id, **values)
        )
    elif before.status == "pending" and before.greeting == greeting:
        return
    else:
        await _write(change, user_id, values)
    await _tell(change, GroupApplication(change.id, user_id, change.ctx.at, greeting=greeting))


async def list_applications(
    cmd: ListGroupApplications, ctx: Context[Deps]
) -> Outcome[GroupApplications]:
    """Those that wait, oldest first, for who may decide."""
    group, me = await ctx.deps.groups.get(cmd.id, ctx.user_id)
    if me is None:
        raise NotMember(f"you are no member of group {group.group_id}", field="id")
    if not allowed("approve", me.role):
        raise Forbidden("only the owner and admins see applications")
    after = position(cmd.cursor, 2)
    found = await ctx.deps.groups.applications(cmd.id, (after[0], after[1]), cmd.limit + 1)
    page = list(found[: cmd.limit])
    more = len(found) > cmd.limit
    cursor = f"{page[-1].created_at}.{page[-1].user_id}" if more else None
    return Outcome(GroupApplications(page, cursor))


async def accept(cmd: AcceptGroupApplication, ctx: Context[Deps]) -> Outcome[GroupApplication]:
    """Lets the applicant in, if there is room; twice is as once."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        answer = await _decided(change, cmd.uid, "accepted")
        if answer.status == "pending":
            answer.status = "accepted"
            new = await change.take_in([cmd.uid])
            await _tell(change, answer)
            await change.say("group.accepted", answer, joined=new, user_ids=new)
    return await deps.announcer.announce(change, answer)


async def reject(cmd: RejectGroupApplication, ctx: Context[Deps]) -> Outcome[GroupApplication]:
    """Turns the applicant away; twice is as once."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        answer = await _decided(change, cmd.uid, "rejected")
        if answer.status == "pending":
            answer.status = "rejected"
            await _write(change, cmd.uid, {"status": "rejected"})
            await _tell(change, answer)
    return await deps.announcer.announce(change, answer)


async def _decided(change: Change, user_id: int, as_wanted: str) -> GroupApplication:
    """An application that is pending, or was decided just so before. Raises: NotFound."""
    change.need("approve")
    found = await _read(change, user_id)
    if found is None or found.status not in ("pending", as_wanted):
        raise NotFound(f"user {user_id} has no application here", field="uid")
    return found


async def _read(change: Change, user_id: int) -> GroupApplication | None:
    query = _APPLICATION.where(_ROW.group_id == change.id, _ROW.user_id == user_id)
    row = (await change.connection.execute(query)).first()
    return None if row is None else GroupApplication(*row)


async def _write(change: Change, user_id: int, values: dict[str, Any]) -> None:
    await change.connection.execute(
        update(tables.group_application)
        .where(_ROW.group_id == change.id, _ROW.user_id == user_id)
        .values(values)
    )


async def _tell(change: Change, application: GroupApplication) -> None:
    """Pushes it to the applicant and to all who may decide."""
    deciding = [int(role) for role in Role if allowed("approve", role)]
    query = select(_SEAT.user_id).where(_SEAT.group_id == change.id, _SEAT.role.in_(deciding))
    users: Sequence[int] = (await change.connection.execute(query)).scalars().all()
    told = dict.fromkeys([application.user_id, *users])
    change.pushes += [to_user(user_id, GroupApplied(application)) for user_id in told]
    change.note()
