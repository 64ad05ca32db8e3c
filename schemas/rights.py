"""Who may do what in a group: the one table. The functions decide by it, the guide shows it.

It says what a role may do to whom. Nobody does anything to himself by a right over others: that is what the actions
`leave` and `rename_self` are for.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Literal, NamedTuple


class Role(IntEnum):
    """As it stands in SQL and on the wire."""

    MEMBER = 0
    ADMIN = 1
    OWNER = 2


Action = Literal[
    "read",
    "write",
    "write_muted",
    "pin",
    "recall",
    "edit",
    "configure",
    "invite_open",
    "invite_closed",
    "approve",
    "kick",
    "mute",
    "mute_all",
    "rename_self",
    "rename",
    "role",
    "transfer",
    "leave",
    "dissolve",
]


class Right(NamedTuple):
    """What an action is, and which roles of the other one each role may do it to.

    An action on the group as a whole has `target` False; then a role may do it or not, `()`.
    """

    about: str
    member: tuple[Role, ...] | bool
    admin: tuple[Role, ...] | bool
    owner: tuple[Role, ...] | bool


_M, _A, _O = Role.MEMBER, Role.ADMIN, Role.OWNER

RIGHTS: Mapping[Action, Right] = {
    "read": Right("read messages, members and settings", True, True, True),
    "write": Right("send, edit, react, unless muted", True, True, True),
    "write_muted": Right("write although all are muted", False, True, True),
    "pin": Right("pin a message", False, True, True),
    "recall": Right("recall somebody's message, at any time", (), (_M, _A, _O), (_M, _A, _O)),
    "edit": Right("change name, avatar, announcement", False, True, True),
    "configure": Right("change join, past, max_members", False, False, True),
    "invite_open": Right("take somebody into an open group", True, True, True),
    "invite_closed": Right("take somebody into any other group", False, True, True),
    "approve": Right("see, accept and reject applications", False, True, True),
    "kick": Right("remove a member", (), (_M,), (_M, _A)),
    "mute": Right("mute a member", (), (_M,), (_M, _A)),
    "mute_all": Right("mute all members", False, True, True),
    "rename_self": Right("set one's own name in the group", True, True, True),
    "rename": Right("set another's name in the group", (), (_M,), (_M, _A)),
    "role": Right("make and unmake admins", (), (), (_M, _A)),
    "transfer": Right("hand the group over", (), (), (_M, _A)),
    "leave": Right("leave", True, True, False),
    "dissolve": Right("dissolve the group", False, False, True),
}


def allowed(action: Action, role: Role, target: Role | None = None) -> bool:
    """Whether `role` may do it; where the action is one on somebody else, to whom has the role `target`."""
    right = RIGHTS[action][1 + role]
    return right if isinstance(right, bool) else target in right


def markdown() -> str:
    """The table as the guide shows it."""
    lines = ["| action | what | member | admin | owner |", "| --- | --- | --- | --- | --- |"]
    for action, right in RIGHTS.items():
        cells = " | ".join(_cell(r) for r in right[1:])
        lines.append(f"| `{action}` | {right.about} | {cells} |")
    return "\n".join(lines)


def _cell(right: tuple[Role, ...] | bool) -> str:
    if isinstance(right, bool):
        return "yes" if right else "–"
    return ", ".join(role.name.lower() for role in right) or "–"
