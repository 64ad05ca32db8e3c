"""Groups: `client.groups`. What happens in them comes out of `client.events()`: changes as messages of `msg_type` 0."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from clients.python.natterjack.api import Api
from clients.python.natterjack.errors import Forbidden
from clients.python.natterjack.frames import Reply
from schemas.groups import (
    AcceptGroupApplication,
    CreateGroup,
    DissolveGroup,
    GetGroup,
    Group,
    GroupApplication,
    GroupApplications,
    GroupMember,
    Groups,
    InvitedMembers,
    InviteMembers,
    Join,
    JoinedGroup,
    JoinGroup,
    KickMember,
    LeaveGroup,
    ListGroupApplications,
    ListGroups,
    ListMembers,
    Members,
    MuteAll,
    MuteMember,
    RejectGroupApplication,
    SetGroupNickname,
    SetRole,
    TransferGroup,
    UpdateGroup,
)
from schemas.types import Empty, Model


class Asker(Protocol):
    """`Client.request`."""

    async def __call__(self, command: Model, reply: type[Reply]) -> Reply:
        """Asks until there is an answer."""
        ...


class GroupCalls:
    """All commands of groups. They raise ApiError if the server refuses, and are repeated until there is an answer."""

    def __init__(self, ask: Asker, api: Api) -> None:
        self._ask = ask
        self._api = api

    async def create(
        self, name: str, members: Sequence[int] = (), *, join: Join = "open", max_members: int = 500
    ) -> Group:
        """Makes a group; never asked twice, which would make two. Raises: UnknownOutcome, too."""
        command = CreateGroup(name, list(members), join=join, max_members=max_members)
        return await self._api.call(command, Group)

    async def get(self, group_id: int) -> Group:
        """One group."""
        return await self._ask(GetGroup(group_id), Group)

    async def mine(self) -> AsyncIterator[Group]:
        """All of one's own."""
        cursor: str | None = None
        while True:
            page = await self._ask(ListGroups(cursor, 200), Groups)
            for group in page.groups:
                yield group
            if (cursor := page.next) is None:
                return

    async def members(self, group_id: int) -> AsyncIterator[GroupMember]:
        """All members of a group."""
        cursor: str | None = None
        while True:
            page = await self._ask(ListMembers(group_id, cursor, 200), Members)
            for member in page.members:
                yield member
            if (cursor := page.next) is None:
                return

    async def update(self, changes: UpdateGroup) -> Group:
        """Changes the fields that are set."""
        return await self._ask(changes, Group)

    async def join(self, group_id: int, greeting: str = "") -> JoinedGroup:
        """Joins, or applies: `status` tells."""
        return await self._ask(JoinGroup(group_id, greeting), JoinedGroup)

    async def leave(self, group_id: int) -> None:
        """Leaves; whoever is no member has left."""
        try:
            await self._ask(LeaveGroup(group_id), Empty)
        except Forbidden as error:
            if error.code != "not_member":
                raise

    async def dissolve(self, group_id: int) -> None:
        """Ends a group for all."""
        await self._ask(DissolveGroup(group_id), Empty)

    async def invite(self, group_id: int, user_ids: Sequence[int]) -> list[int]:
        """Takes users in; returns those who were not."""
        return (await self._ask(InviteMembers(group_id, list(user_ids)), InvitedMembers)).user_ids

    async def kick(self, group_id: int, user_id: int) -> None:
        """Removes a member. If the answer to a first try was lost, the second one finds nobody (`not_found`)."""
        await self._ask(KickMember(group_id, user_id), Empty)

    async def transfer(self, group_id: int, user_id: int) -> Group:
        """Hands the group over to a member."""
        return await self._ask(TransferGroup(group_id, user_id), Group)

    async def set_admin(self, group_id: int, user_id: int, *, admin: bool = True) -> GroupMember:
        """Makes a member an admin, or an admin a member."""
        return await self._ask(SetRole(group_id, user_id, int(admin)), GroupMember)

    async def mute(self, group_id: int, user_id: int, until: int) -> GroupMember:
        """Mutes a member until a Unix time in ms; 0 lifts it."""
        return await self._ask(MuteMember(group_id, user_id, until), GroupMember)

    async def mute_all(self, group_id: int, *, on: bool = True) -> Group:
        """Lets only the owner and admins write, or all again."""
        return await self._ask(MuteAll(group_id, on), Group)

    async def set_nickname(self, group_id: int, user_id: int, nickname: str | None) -> GroupMember:
        """Sets a name in the group, one's own or another's."""
        return await self._ask(SetGroupNickname(group_id, user_id, nickname), GroupMember)

    async def applications(self, group_id: int) -> AsyncIterator[GroupApplication]:
        """Who waits to be let in, oldest first."""
        cursor: str | None = None
        while True:
            asked = ListGroupApplications(group_id, cursor, 200)
            page = await self._ask(asked, GroupApplications)
            for application in page.applications:
                yield application
            if (cursor := page.next) is None:
                return

    async def decide(self, group_id: int, user_id: int, *, accept: bool) -> GroupApplication:
        """Lets an applicant in, or turns him away."""
        kind = AcceptGroupApplication if accept else RejectGroupApplication
        return await self._ask(kind(group_id, user_id), GroupApplication)
