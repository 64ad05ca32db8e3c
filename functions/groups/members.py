"""Who is in, and what he is there."""

from functions.groups.applications import apply
from functions.groups.change import Change
from functions.groups.deps import Deps
from functions.groups.rows import Seat
from schemas.events import GroupMemberUpdated
from schemas.groups import (
    GroupMember,
    InvitedMembers,
    InviteMembers,
    JoinedGroup,
    JoinGroup,
    KickMember,
    LeaveGroup,
    MuteMember,
    SetGroupNickname,
    SetRole,
)
from schemas.types import Empty
from shared.errors import Forbidden
from shared.function import Context, Outcome
from shared.ids import created_at
from shared.names import nickname_key

FOR_EVER_MS = 253_402_300_799_999
"""End of the year 9999: no column for times of any of the databases reaches further."""


async def join(cmd: JoinGroup, ctx: Context[Deps]) -> Outcome[JoinedGroup]:
    """Lets one in, or keeps his application."""
    deps = ctx.deps
    answer = JoinedGroup(cmd.id, "joined")
    async with deps.changes.of(cmd.id, ctx) as change:
        if change.me is None and change.group.join == "invite":
            raise Forbidden("this group takes members only by invitation", field="id")
        if change.me is None and change.group.join == "approval":
            await apply(change, cmd.greeting)
            answer = JoinedGroup(cmd.id, "applied")
        elif change.me is None:
            new = await change.take_in([ctx.user_id])
            await change.say("group.joined", answer, joined=new, user_ids=new)
    return await deps.announcer.announce(change, answer)


async def invite(cmd: InviteMembers, ctx: Context[Deps]) -> Outcome[InvitedMembers]:
    """Takes others in, all or none."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        change.need("invite_open" if change.group.join == "open" else "invite_closed")
        new = await change.take_in(cmd.user_ids, invited=True)
        answer = InvitedMembers(cmd.id, new)
        if new:
            await change.say("group.invited", answer, joined=new, user_ids=new)
    return await deps.announcer.announce(change, answer)


async def leave(cmd: LeaveGroup, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends one's own membership."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        me = change.need("leave")
        await change.remove(me, "left")
        await change.say("group.left", Empty(), left=[me.user_id], user_ids=[me.user_id])
    return await deps.announcer.announce(change, Empty())


async def kick(cmd: KickMember, ctx: Context[Deps]) -> Outcome[Empty]:
    """Ends another's membership."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        target = await change.other(cmd.uid)
        change.need("kick", target)
        await change.remove(target, "kicked")
        await change.say("group.kicked", Empty(), left=[cmd.uid], user_ids=[cmd.uid])
    return await deps.announcer.announce(change, Empty())


async def role(cmd: SetRole, ctx: Context[Deps]) -> Outcome[GroupMember]:
    """Makes a member an admin, or an admin a member."""
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        seat = await change.other(cmd.uid)
        change.need("role", seat)
        if seat.role != cmd.role:
            seat = await change.set_seat(seat, role=cmd.role)
            _tell(change, seat)
            await change.say("group.role", seat.shown(), user_id=cmd.uid, role=cmd.role)
    return await deps.announcer.announce(change, seat.shown())


async def mute(cmd: MuteMember, ctx: Context[Deps]) -> Outcome[GroupMember]:
    """Mutes a member until a time, or lifts it; a time that is past lifts it as well."""
    deps = ctx.deps
    until = min(cmd.until, FOR_EVER_MS) if cmd.until > ctx.at else 0
    async with deps.changes.of(cmd.id, ctx) as change:
        seat = await change.other(cmd.uid)
        change.need("mute", seat)
        if seat.muted_ms != until:
            shown = created_at(until) if until else None
            seat = await change.set_seat(seat, muted_ms=until, muted_until=shown)
            _tell(change, seat)
            await change.say("group.mute", seat.shown(), user_id=cmd.uid, until=until)
    return await deps.announcer.announce(change, seat.shown())


async def nickname(cmd: SetGroupNickname, ctx: Context[Deps]) -> Outcome[GroupMember]:
    """Sets one's own name in the group, or another's. No message of the conversation: names are no news."""
    if cmd.nickname is not None:
        nickname_key(cmd.nickname)
    deps = ctx.deps
    async with deps.changes.of(cmd.id, ctx) as change:
        if cmd.uid == ctx.user_id:
            seat = change.need("rename_self")
        else:
            seat = await change.other(cmd.uid)
            change.need("rename", seat)
        if seat.nickname != cmd.nickname:
            seat = await change.set_seat(seat, nickname=cmd.nickname)
            _tell(change, seat)
            change.note()
    return await deps.announcer.announce(change, seat.shown())


def _tell(change: Change, seat: Seat) -> None:
    change.to_all(GroupMemberUpdated(change.id, change.group.version, seat.shown()))
