"""What one sees of groups, and what the edge asks of them."""

from functions.groups.deps import Deps
from functions.groups.paging import position
from functions.groups.rows import seen
from schemas.groups import GetGroup, Group, Groups, ListGroups, ListMembers, Members
from schemas.internal import Among, GetAmong, GetMemberships, Memberships
from shared.errors import NotMember
from shared.function import Context, Outcome

OVERLAP_MS = 60_000
"""How far `as_of` lies back: no transaction lasts so long, and no two clocks are so far apart."""


async def get(cmd: GetGroup, ctx: Context[Deps]) -> Outcome[Group]:
    """One group, as a member or as somebody who thinks of joining."""
    group, me = await ctx.deps.groups.get(cmd.id, ctx.user_id)
    if me is None and group.join == "invite":
        raise NotMember(f"you are no member of group {cmd.id}", field="id")
    return Outcome(seen(group, me))


async def list_groups(cmd: ListGroups, ctx: Context[Deps]) -> Outcome[Groups]:
    """One's own groups, or those that changed."""
    deps = ctx.deps
    (after,) = position(cmd.cursor)
    as_of = max(0, ctx.at - OVERLAP_MS)
    group_ids = [] if cmd.cursor else await deps.groups.ids_of(ctx.user_id)
    found = await deps.groups.of_user(ctx.user_id, after, cmd.limit + 1, cmd.changed_after or 0)
    page = [seen(group, seat) for group, seat in found[: cmd.limit]]
    cursor = str(page[-1].group_id) if len(found) > cmd.limit else None
    return Outcome(Groups(page, cursor, group_ids, as_of))


async def list_members(cmd: ListMembers, ctx: Context[Deps]) -> Outcome[Members]:
    """A page of members, for members."""
    deps = ctx.deps
    (after,) = position(cmd.cursor)
    group, me = await deps.groups.get(cmd.id, ctx.user_id)
    if me is None:
        raise NotMember(f"you are no member of group {cmd.id}", field="id")
    found = await deps.groups.members(cmd.id, after, cmd.limit + 1)
    page = [seat.shown() for seat in found[: cmd.limit]]
    cursor = str(page[-1].user_id) if len(found) > cmd.limit else None
    return Outcome(Members(page, group.members_version, cursor))


async def memberships(cmd: GetMemberships, ctx: Context[Deps]) -> Outcome[Memberships]:
    """In which groups users are."""
    return Outcome(Memberships(await ctx.deps.groups.memberships(cmd.user_ids)))


async def among(cmd: GetAmong, ctx: Context[Deps]) -> Outcome[Among]:
    """Which users are in a group."""
    return Outcome(await ctx.deps.groups.among(cmd.group_id, cmd.user_ids))
