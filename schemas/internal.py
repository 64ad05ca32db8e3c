"""What the edge asks for itself, as user 0: no client can send these commands."""

from typing import Annotated

from msgspec import Meta

from schemas.types import GroupId, MembersVersion, Model, Token, UserId

MOST_ASKED = 1000
"""Most users of one question."""

Users = Annotated[list[UserId], Meta(max_length=MOST_ASKED)]


class GetMemberships(Model):
    """In which groups these users are.

    The edge asks it for users who have just connected, after it has subscribed to their events.
    """

    user_ids: Users


class Membership(Model, array_like=True):
    """A user is a member, as of this version. On the wire an array, since there are many of them."""

    group_id: GroupId
    members_version: MembersVersion


class UserMemberships(Model):
    """All groups of one user."""

    user_id: UserId
    groups: list[Membership] = []


class Memberships(Model):
    """The groups of all users that were asked for; who is missing has none."""

    memberships: list[UserMemberships]


class GetAmong(Model):
    """Which of these users are members of a group.

    The edge asks it when an event names a newer `members_version` than it knows.
    """

    group_id: GroupId
    user_ids: Users


class Among(Model):
    """Members among those that were asked for, all as of one version.

    A dissolved group has its last version and nobody; one that never was, 0 and nobody.
    """

    members_version: MembersVersion
    user_ids: list[UserId]


class SessionOf(Model):
    """A session and whose it is."""

    user_id: UserId
    session_id: Token


class CheckSessions(Model):
    """Which of these sessions have ended.

    The edge asks it for every new WebSocket, since it verifies tokens alone.
    """

    sessions: Annotated[list[SessionOf], Meta(max_length=MOST_ASKED)]


class EndedSessions(Model):
    """Those that have ended before their time."""

    ended: list[SessionOf] = []
