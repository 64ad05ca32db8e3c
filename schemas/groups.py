"""Groups: requests and replies of the `groups` function.

Who may do what stands in `schemas.rights`.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from schemas.types import (
    Cursor,
    GroupId,
    Limit,
    MembersVersion,
    Milliseconds,
    Model,
    Next,
    Nickname,
    UserId,
)
from schemas.users import WebAddress

DEFAULT_MEMBERS = 500
MOST_MEMBERS = 10_000
MOST_AT_ONCE = 500
"""Most users that one command takes into a group; a larger group is filled by several."""
MOST_GROUPS = 1_000
"""Most groups of one user: an edge asks for all of them at once when he connects."""

Role = Annotated[int, Meta(ge=0, le=2, description="0 member, 1 admin, 2 owner.")]
Version = Annotated[
    int, Meta(ge=0, description="Counts the changes of a group; the greater one is the newer.")
]
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)",
        description="What the group is called; not unique.",
    ),
]
Announcement = Annotated[
    str, Meta(max_length=2000, description="Shown to all members; empty: none.")
]
MaxMembers = Annotated[int, Meta(ge=1, le=MOST_MEMBERS, description="Most members.")]
Join = Annotated[
    Literal["open", "approval", "invite"],
    Meta(
        description="How one gets in: `open` at once, `approval` when the owner or an admin accepts, "
        "`invite` only by invitation."
    ),
]
Past = Annotated[
    Literal["hidden", "visible"],
    Meta(
        description="What a new member sees of the conversation: from his joining on, or all of it. "
        "A change of the setting holds for those who join after it."
    ),
]
UserIds = Annotated[list[UserId], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class GroupInfo(Model, kw_only=True):
    """A group as all its members see it."""

    group_id: GroupId
    name: str
    owner_id: UserId
    max_members: int
    member_count: int
    join: Join
    past: Past
    version: Version
    members_version: MembersVersion
    created_at: Milliseconds
    avatar: Annotated[str, Meta(description="Address of a picture.")] | None = None
    announcement: str = ""
    mute_all: Annotated[bool, Meta(description="Only owner and admins may write.")] = False


class Group(GroupInfo, kw_only=True):
    """A group as the asker sees it. `role` null: he is no member, and some fields are left out."""

    role: Role | None = None
    nickname: Annotated[str, Meta(description="The asker's name in this group.")] | None = None
    muted_until: Milliseconds = 0
    joined_at: Milliseconds = 0


class GroupMember(Model):
    """One member of a group."""

    user_id: UserId
    role: Role
    joined_at: Milliseconds
    nickname: Annotated[str, Meta(description="His name in this group.")] | None = None
    muted_until: Annotated[
        Milliseconds, Meta(description="Until when he may not write; past or 0: he may.")
    ] = 0


class CreateGroup(Model):
    """Makes a group: the asker is its owner, `member_ids` are its first members."""

    name: Name
    member_ids: Annotated[list[UserId], Meta(max_length=MOST_AT_ONCE)] = []
    avatar: WebAddress | None = None
    announcement: Announcement = ""
    max_members: MaxMembers = DEFAULT_MEMBERS
    join: Join = "open"
    past: Past = "hidden"


class GetGroup(Model):
    """One group. Those who are not in see what they need to join; of an invite-only group, nothing."""

    id: GroupId


class ListGroups(Model):
    """One's own groups, by their ids.

    `changed_after`: only those that changed since the `as_of` of an earlier answer.
    """

    cursor: Cursor | None = None
    limit: Limit = 50
    changed_after: Milliseconds | None = None


class Groups(Model):
    """A page of one's groups.

    `group_ids` is the whole list, on the first page only: what a device knows beyond it, it has left.
    `as_of` of the first page is the `changed_after` of the next time; a group may then come twice.
    """

    groups: list[Group]
    next: Next | None
    group_ids: list[GroupId]
    as_of: Milliseconds


class UpdateGroup(Model):
    """Changes the fields that are present; `avatar` null removes it."""

    id: GroupId
    name: Name | UnsetType = UNSET
    avatar: WebAddress | UnsetType | None = UNSET
    announcement: Announcement | UnsetType = UNSET
    join: Join | UnsetType = UNSET
    past: Past | UnsetType = UNSET
    max_members: MaxMembers | UnsetType = UNSET


class DissolveGroup(Model):
    """Ends a group for all. Its messages stay readable to those who were in."""

    id: GroupId


class JoinGroup(Model):
    """Joins an open group, or applies where that takes approval. Who is in already stays so."""

    id: GroupId
    greeting: Annotated[
        str, Meta(max_length=200, description="For those who decide on the application.")
    ] = ""


class JoinedGroup(Model):
    """What became of it."""

    group_id: GroupId
    status: Annotated[
        Literal["joined", "applied"], Meta(description="In, or waiting for approval.")
    ]


class LeaveGroup(Model):
    """Leaves a group. Its owner hands it over first, or dissolves it."""

    id: GroupId


class ListMembers(Model):
    """The members of a group, by their user ids."""

    id: GroupId
    cursor: Cursor | None = None
    limit: Limit = 50


class Members(Model):
    """A page of members. If `members_version` differs between pages, read them again."""

    members: list[GroupMember]
    members_version: MembersVersion
    next: Next | None


class InviteMembers(Model):
    """Takes users into a group, all or none of them; those who are in already stay so."""

    id: GroupId
    user_ids: UserIds


class InvitedMembers(Model):
    """Who is in now and was not before."""

    group_id: GroupId
    user_ids: list[UserId]


class KickMember(Model):
    """Removes a member."""

    id: GroupId
    uid: UserId


class TransferGroup(Model):
    """Makes another member the owner; the former owner becomes an admin."""

    id: GroupId
    user_id: UserId


class SetRole(Model):
    """Makes a member an admin (1), or an admin a member (0)."""

    id: GroupId
    uid: UserId
    role: Annotated[int, Meta(ge=0, le=1, description="0 member, 1 admin.")]


class MuteMember(Model):
    """Lets a member write again only after a time."""

    id: GroupId
    uid: UserId
    until: Annotated[Milliseconds, Meta(description="0 lifts it.")]


class MuteAll(Model):
    """Lets only the owner and admins write, or all again."""

    id: GroupId
    on: bool


class SetGroupNickname(Model):
    """Sets a member's name in the group; null removes it."""

    id: GroupId
    uid: UserId
    nickname: Nickname | None


class GroupApplication(Model):
    """Somebody asks to be let in."""

    group_id: GroupId
    user_id: UserId
    created_at: Milliseconds
    status: Literal["pending", "accepted", "rejected"] = "pending"
    greeting: str = ""


class ListGroupApplications(Model):
    """Who waits to be let in, oldest first."""

    id: GroupId
    cursor: Cursor | None = None
    limit: Limit = 50


class GroupApplications(Model):
    """A page of applications."""

    applications: list[GroupApplication]
    next: Next | None


class AcceptGroupApplication(Model):
    """Lets the applicant in."""

    id: GroupId
    uid: UserId


class RejectGroupApplication(Model):
    """Turns the applicant away; he may apply again."""

    id: GroupId
    uid: UserId
