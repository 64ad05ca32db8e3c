"""Rows of `group` and `group_member`, and what clients see of them."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import select

from schemas.groups import Group, GroupInfo, GroupMember
from schemas.rights import Role
from shared import tables

_GROUP = tables.group.c
_SEAT = tables.group_member.c

GROUP = select(
    _GROUP.id.label("group_id"),
    _GROUP.name,
    _GROUP.owner_id,
    _GROUP.max_members,
    _GROUP.member_count,
    _GROUP.join_mode.label("join"),
    _GROUP.past,
    _GROUP.version,
    _GROUP.members_version,
    _GROUP.created_ms.label("created_at"),
    _GROUP.avatar,
    _GROUP.announcement,
    _GROUP.mute_all,
)
"""The columns of `schemas.groups.GroupInfo`."""
_INFO = [column.name for column in GROUP.selected_columns]
SEAT = select(_SEAT.user_id, _SEAT.role, _SEAT.joined_ms, _SEAT.nickname, _SEAT.muted_ms)
"""The columns of `schemas.groups.GroupMember`, in its order."""


class Seat(msgspec.Struct, frozen=True):
    """One member's place in a group."""

    user_id: int
    role: Role
    joined_ms: int
    nickname: str | None = None
    muted_ms: int = 0

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Seat":
        """From a row of SEAT."""
        return cls(row[0], Role(row[1]), *row[2:])

    def shown(self) -> GroupMember:
        """As members see it."""
        return GroupMember(
            self.user_id, int(self.role), self.joined_ms, self.nickname, self.muted_ms
        )


def info(row: Sequence[Any]) -> GroupInfo:
    """A group, from a row of GROUP."""
    fields = dict(zip(_INFO, row, strict=True))
    return GroupInfo(**{**fields, "mute_all": bool(fields["mute_all"])})


def seen(group: GroupInfo, seat: Seat | None) -> Group:
    """A group as one who has this seat sees it; a stranger sees what he needs to join."""
    fields = msgspec.structs.asdict(group)
    if seat is None:
        return Group(**{**fields, "announcement": "", "mute_all": False})
    return Group(
        **fields,
        role=int(seat.role),
        nickname=seat.nickname,
        muted_until=seat.muted_ms,
        joined_at=seat.joined_ms,
    )
