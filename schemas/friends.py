"""Friends and applications: requests and replies of `friend_apply` and `friends`."""

from typing import Annotated, Literal

from msgspec import Meta

from schemas.types import MAX_NUMBER, Cursor, Limit, Milliseconds, Model, Next, UserId
from schemas.users import Person

ApplicationId = Annotated[int, Meta(ge=1, le=MAX_NUMBER, description="An application's number.")]
Greeting = Annotated[str, Meta(max_length=200, description="What the applicant says first.")]
Remark = Annotated[
    str, Meta(max_length=50, description="One's own name for a friend, seen by nobody else.")
]
FriendsVersion = Annotated[
    int,
    Meta(ge=0, le=MAX_NUMBER, description="Counts the changes of one's list of friends."),
]


class Application(Model):
    """One user's wish to be another's friend. Both see it."""

    id: ApplicationId
    from_user_id: UserId
    to_user_id: UserId
    greeting: Greeting
    status: Literal["pending", "accepted", "rejected", "expired"]
    created_at: Milliseconds
    expires_at: Annotated[Milliseconds, Meta(description="When it expires if it is not answered.")]


class Friend(Person):
    """A friend, or somebody one has blocked, as one sees him."""

    remark: Remark = ""
    blocked: Annotated[bool, Meta(description="One has blocked him.")] = False
    since: (
        Annotated[Milliseconds, Meta(description="Since when friends; null: no friends.")] | None
    ) = None


class ApplyFriend(Model):
    """Asks a user to become friends. A repeat is the same application, with the newer greeting.

    If he has applied to you, you are friends at once: the answer's `status` is `accepted`.
    """

    user_id: UserId
    greeting: Greeting = ""


class ListApplications(Model):
    """Applications from and to oneself, newest first."""

    direction: (
        Annotated[
            str,
            Meta(
                pattern=r"^(in|out)$(?!\n)",
                description="`in`: only those to oneself; `out`: from oneself; without it, both.",
            ),
        ]
        | None
    ) = None
    cursor: Cursor | None = None
    limit: Limit = 50


class Applications(Model):
    """A page of applications."""

    applications: list[Application]
    next: Next | None


class AcceptApplication(Model):
    """Accepts an application to oneself."""

    id: ApplicationId


class RejectApplication(Model):
    """Rejects an application to oneself."""

    id: ApplicationId


class ListFriends(Model):
    """One's friends, or what has changed among them after a version one knows."""

    after_version: (
        Annotated[
            FriendsVersion,
            Meta(description="The `version` of an earlier answer: only what changed after it."),
        ]
        | None
    ) = None
    cursor: Cursor | None = None
    limit: Limit = 50


class Friends(Model):
    """A page of friends, the least recently changed first."""

    friends: list[Friend]
    removed: Annotated[list[UserId], Meta(description="With `after_version`: friends no more.")]
    version: Annotated[
        FriendsVersion,
        Meta(description="Of the last page: `after_version` of the next time."),
    ]
    next: Next | None


class RemarkFriend(Model):
    """Gives a friend a name of one's own; an empty one removes it."""

    id: UserId
    remark: Remark


class DeleteFriend(Model):
    """Ends a friendship, for both."""

    id: UserId


class BlockUser(Model):
    """From the answer on he can neither write nor apply to you, nor see what is for friends.

    He need not be a friend; a friendship rests until he is unblocked.
    """

    id: UserId


class UnblockUser(Model):
    """Takes a block back."""

    id: UserId


class ListBlocked(Model):
    """Whom one has blocked, by ascending user id."""

    cursor: Cursor | None = None
    limit: Limit = 50


class BlockedUsers(Model):
    """A page of those one has blocked."""

    users: list[Friend]
    next: Next | None
