"""A group as a whole: made, changed, handed over, dissolved."""

from typing import Any

from msgspec import UNSET

from functions.groups.deps import Deps
from functions.groups.rows import seen
from schemas.events import GroupMemberUpdated, GroupUpdated
from schemas.groups import (
    CreateGroup,
    DissolveGroup,
    Group,
    MuteAll,
    TransferGroup,
    UpdateGroup,
)
from schemas.rights import Role
from schemas.types import Empty
from shared.errors import BadRequest, Conflict, NotFound
from shared.function import Context, Outcome
from shared.gate import group_key

EDITED = ("name", "avatar", "announcement")
CONFIGURED = ("join", "past", "max_members")
"""Fields of UpdateGroup, by the right that it takes to change them."""


async def create(cmd: CreateGroup, ctx: Context[Deps]) -> Outcome[Group]:
    """Makes a group with its first members, all or none."""
    _check_name(cmd.name)
    deps = ctx.deps
    async with deps.changes.new(
        ctx,
        name=cmd.name,
        avatar=cmd.avatar,
        announcement=cmd.announcement,
        max_members=cmd.max_members,
        join_mode=cmd.join,
        past=cmd.past,
    ) as change:
        new = await change.take_in(cmd.member_ids, invited=True)
        answer = seen(change.group, change.me)
        await change.say(
            "group.created", answer, joined=[ctx.user_id, *new], name=cmd.name, user_ids=new
        )
    return await deps.announcer.announce(change, answer)


async def update(cmd: UpdateGroup, ctx: Context[Deps]) -> Outcome[Group]:
    """Changes what is named; what is so already is no change."""
    if cmd.name is not UNSET:
        _check_name(cmd.name)
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        wanted = {f: getattr(cmd, f) for f in (*EDITED, *CONFIGURED)}
        wanted = {field: value for field, value in wanted.items() if value is not UNSET}
        me = change.need("read")
        if wanted.keys() & set(EDITED):
            change.need("edit")
        if wanted.keys() & set(CONFIGURED):
            change.need("configure")
        if wanted.get("max_members", change.group.max_members) < change.group.member_count:
            raise Conflict(
                f"the group has {change.group.member_count} members", field="max_members"
            )
        new = {f: v for f, v in wanted.items() if getattr(change.group, f) != v}
        if new:
            columns: dict[str, Any] = {"join_mode" if f == "join" else f: v for f, v in new.items()}
            await change.set(**columns)
            change.to_all(GroupUpdated(change.group))
            await change.say("group.updated", seen(change.group, me), **new)
    return await deps.announcer.announce(change, seen(change.group, me))


async def mute_all(cmd: MuteAll, ctx: Context[Deps]) -> Outcome[Group]:
    """Lets only owner and admins write, or all again."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        me = change.need("mute_all")
        if change.group.mute_all != cmd.on:
            await change.set(mute_all=int(cmd.on))
            change.keys.append(group_key(cmd.id))
            change.to_all(GroupUpdated(change.group))
            await change.say("group.mute_all", seen(change.group, me), on=cmd.on)
    return await deps.announcer.announce(change, seen(change.group, me))


async def transfer(cmd: TransferGroup, ctx: Context[Deps]) -> Outcome[Group]:
    """Hands the group over; who was its owner is an admin then."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        target = await change.other(cmd.user_id, "user_id")
        me = change.need("transfer", target)
        owner = await change.set_seat(target, role=int(Role.OWNER))
        admin = await change.set_seat(me, role=int(Role.ADMIN))
        await change.set(owner_id=target.user_id)
        answer = seen(change.group, admin)
        change.to_all(GroupUpdated(change.group))
        for seat in (owner, admin):
            change.to_all(GroupMemberUpdated(cmd.id, change.group.version, seat.shown()))
        await change.say("group.transferred", answer, user_id=target.user_id)
    return await deps.announcer.announce(change, answer)


async def dissolve(cmd: DissolveGroup, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends the group; its owner may say so twice."""
    deps = ctx.deps
    try:
        async with deps.changes.of(cmd.id, ctx) as change:
            change.need("dissolve")
            members = await change.remove_all()
            await change.set(dissolved_ms=ctx.at)
            await change.say("group.dissolved", Empty(), left=members)
    except NotFound:
        if await deps.groups.last_owner(cmd.id) != ctx.user_id:
            raise
        return await deps.announcer.repeat(cmd.id, Empty())
    return await deps.announcer.announce(change, Empty())


def _check_name(name: str) -> None:
    if not any(c.isprintable() and not c.isspace() for c in name):
        raise BadRequest("the name is blank", field="name")
