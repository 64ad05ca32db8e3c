"""Profiles: requests and replies of the `profile` function."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from schemas.types import (
    Cursor,
    Empty,
    Limit,
    Milliseconds,
    Model,
    Next,
    Nickname,
    UserId,
)


class Person(Model):
    """What anybody may see of a user."""

    user_id: UserId
    username: str
    nickname: str
    avatar: Annotated[str, Meta(description="Address of a picture.")] | None = None


class User(Person):
    """A user as one sees him: what anybody may, what he is to oneself, and what only friends see."""

    friend: Annotated[bool, Meta(description="He is a friend.")] = False
    blocked: Annotated[bool, Meta(description="One has blocked him.")] = False
    remark: Annotated[str, Meta(description="One's own name for him.")] = ""
    online: (
        Annotated[bool, Meta(description="Of friends of whom neither blocks the other.")] | None
    ) = None
    last_seen: (
        Annotated[Milliseconds, Meta(description="Likewise: when his last device left.")] | None
    ) = None


class Me(Person, kw_only=True):
    """What one sees of oneself."""

    created_at: Milliseconds


class GetMe(Empty):
    """One's own profile."""


WebAddress = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=r"^https?://[!-~]+$(?!\n)",  # never `javascript:`, which a careless client would run
        description="An http or https address.",
    ),
]


class UpdateMe(Model):
    """Changes the fields that are present; `avatar` null removes it."""

    nickname: Nickname | UnsetType = UNSET
    avatar: WebAddress | UnsetType | None = UNSET


class DeleteMe(Model):
    """Deletes one's own account.

    The name is freed, all sessions end, the messages stay with their readers. Groups are left soon after; those that
    one owns must be handed over or dissolved before (`conflict`). Friends keep an entry without a name.
    """

    password: Annotated[
        str, Meta(min_length=1, max_length=128, description="One's own, once more.")
    ]


class GetUser(Model):
    """One user's profile."""

    id: UserId


class SearchUsers(Model):
    """Users whose name or nickname starts with `q`."""

    q: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="Start of the name; case does not matter.",
        ),
    ]
    cursor: Cursor | None = None
    limit: Limit = 50


class Users(Model):
    """A page of users."""

    users: list[User]
    next: Next | None
